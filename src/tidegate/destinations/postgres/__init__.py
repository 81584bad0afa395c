"""Tables in PostgreSQL: in Tidegate's own database (`local`) or in any other (`remote`). SPEC 5, "SQL".

pages --layout (typed decode, COPY text)--> lines --upsert (staging table, version rule)--> rows
          | a page the layout cannot take                 | a line PostgreSQL refuses
          careful (record by record), tables (columns)    bisection, quarantine
"""
