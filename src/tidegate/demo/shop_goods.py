"""What the sandbox shop's records look like: products, customers and orders in the shape of Shopify's schema.

Everything is a function of a seed and of the numbers handed in, so that the same shop comes out every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import xxhash

T = TypeVar("T")

Record: TypeAlias = dict[str, Any]
"""A record as GraphQL resolves it: field names as in the schema."""

CURRENCY = "GBP"
VAT_PERCENT = 20

_FIRST_NAMES = (
    "Ada",
    "Bram",
    "Carys",
    "Dewi",
    "Elin",
    "Farah",
    "Grace",
    "Hugo",
    "Imran",
    "Jess",
    "Kofi",
    "Lena",
    "Mei",
    "Noor",
    "Olga",
    "Priya",
)
_LAST_NAMES = (
    "Abara",
    "Bevan",
    "Costa",
    "Davies",
    "Evans",
    "Flynn",
    "Gupta",
    "Hughes",
    "Ito",
    "Jones",
    "Khan",
    "Lowe",
    "Moss",
    "Novak",
)
_CITIES = (("Cardiff", "CF10 1AA"), ("Bristol", "BS1 4ST"), ("Hull", "HU1 2AB"), ("Whitby", "YO21 3PU"))
_GOODS = (
    ("Oilskin jacket", "Outerwear", 8900, "S M L XL"),
    ("Fisherman jumper", "Knitwear", 6400, "S M L XL"),
    ("Canvas deck shoe", "Footwear", 5200, "38 39 40 41 42 43 44 45 46 47 48 49"),
    ("Tide clock", "Home", 3900, "Oak Brass"),
    ("Enamel mug", "Home", 1150, "Blue White"),
    ("Harbour print", "Paper", 2400, "A4 A3 A2"),
    ("Wool blanket", "Home", 7200, "Grey Navy"),
    ("Rope bracelet", "Accessories", 950, "One"),
    ("Storm lantern", "Home", 3300, "Black Red"),
    ("Waxed tote", "Accessories", 4600, "Tan Olive"),
    ("Sea salt soap", "Care", 650, "One"),
    ("Lighthouse candle", "Home", 1800, "Small Large"),
)
PRODUCT_COUNT = len(_GOODS)
_NEW_ORDER = {
    "closedAt": None,
    "closed": False,
    "cancelledAt": None,
    "cancelReason": None,
    "confirmed": True,
    "test": False,
    "displayFinancialStatus": "PENDING",
    "displayFulfillmentStatus": "UNFULFILLED",
    "returnStatus": "NO_RETURN",
}


def roll(seed: int, *labels: object) -> float:
    """Return a number in [0, 1) that depends on nothing but ``seed`` and ``labels``."""
    return xxhash.xxh3_64_intdigest("\0".join(map(str, labels)).encode(), seed) / 2**64


def pick(seed: int, choices: Sequence[T], *labels: object) -> T:
    """Return one of ``choices``, by `roll`."""
    return choices[int(roll(seed, *labels) * len(choices))]


def gid(kind: str, number: int) -> str:
    """Return Shopify's global id, as in gid://shopify/Order/1001."""
    return f"gid://shopify/{kind}/{number}"


def iso(at: int) -> str:
    """Return epoch seconds as Shopify writes an instant: UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def money(pence: int) -> Record:
    """Return an amount of pence as MoneyV2."""
    return {"amount": f"{pence / 100:.2f}", "currencyCode": CURRENCY}


def money_bag(pence: int) -> Record:
    """Return an amount of pence as MoneyBag; shop and buyer use the same currency."""
    amount = money(pence)
    return {"shopMoney": amount, "presentmentMoney": amount}


def product(number: int, at: int, price_factor: float = 1.0) -> Record:
    """Return product ``number``, from 1 to PRODUCT_COUNT, created at ``at`` (epoch seconds)."""
    title, kind, pence, options = _GOODS[number - 1]
    price = round(pence * price_factor)
    sizes = options.split()
    return {
        "id": gid("Product", number),
        "legacyResourceId": str(number),
        "title": title,
        "handle": title.lower().replace(" ", "-"),
        "status": "ACTIVE",
        "vendor": "Tidewater",
        "productType": kind,
        "tags": [kind.lower(), "harbour"],
        "descriptionHtml": f"<p>{title}, made by the sea.</p>",
        "createdAt": iso(at),
        "publishedAt": iso(at),
        "isGiftCard": False,
        "tracksInventory": True,
        "totalInventory": 100 * len(sizes),
        "hasOnlyDefaultVariant": len(sizes) == 1,
        "priceRangeV2": {"minVariantPrice": money(price), "maxVariantPrice": money(price)},
        "variants": [_variant(number, position, size, price, at) for position, size in enumerate(sizes, 1)],
    }


def _variant(product_number: int, position: int, size: str, price: int, at: int) -> Record:
    number = product_number * 1000 + position
    return {
        "id": gid("ProductVariant", number),
        "title": size,
        "sku": f"TW-{number}",
        "barcode": None,
        "price": f"{price / 100:.2f}",
        "compareAtPrice": None,
        "position": position,
        "inventoryQuantity": 100,
        "taxable": True,
        "availableForSale": True,
        "createdAt": iso(at),
        "updatedAt": iso(at),
        "selectedOptions": [{"name": "Size", "value": size}],
        "inventoryItem": {"id": gid("InventoryItem", number)},
    }


def customer(seed: int, number: int, at: int) -> Record:
    """Return customer ``number``, created at ``at`` (epoch seconds), without orders yet."""
    first, last = pick(seed, _FIRST_NAMES, "first", number), pick(seed, _LAST_NAMES, "last", number)
    city, code = pick(seed, _CITIES, "city", number)
    email = f"{first}.{last}.{number}@example.com".lower()
    subscribed = roll(seed, "subscribed", number) < 0.3
    return {
        "id": gid("Customer", number),
        "legacyResourceId": str(number),
        "createdAt": iso(at),
        "displayName": f"{first} {last}",
        "firstName": first,
        "lastName": last,
        "state": "ENABLED",
        "note": None,
        "tags": [],
        "locale": "en",
        "taxExempt": False,
        "verifiedEmail": True,
        "numberOfOrders": "0",
        "amountSpent": money(0),
        "defaultEmailAddress": {
            "emailAddress": email,
            "marketingState": "SUBSCRIBED" if subscribed else "NOT_SUBSCRIBED",
        },
        "defaultPhoneNumber": None,
        "defaultAddress": {
            "name": f"{first} {last}",
            "firstName": first,
            "lastName": last,
            "company": None,
            "address1": f"{1 + number % 90} Quay Street",
            "address2": None,
            "city": city,
            "province": None,
            "provinceCode": None,
            "zip": code,
            "countryCodeV2": "GB",
            "phone": None,
        },
    }


def order(seed: int, number: int, at: int, buyer: Record | None, line_items: int | None = None) -> Record:
    """Return order ``number`` placed at ``at`` (epoch seconds), unpaid; ``line_items`` of them, 1 to 4 by default."""
    count = 1 + int(roll(seed, "lines", number) ** 2 * 4) if line_items is None else line_items
    lines = [_line_item(seed, number, position) for position in range(1, count + 1)]
    subtotal = sum(pence for pence, _ in lines)
    quantity = sum(item["quantity"] for _, item in lines)
    address = buyer and buyer["defaultAddress"]
    return {
        "id": gid("Order", number),
        "legacyResourceId": str(number),
        "name": f"#{number}",
        "confirmationNumber": f"C{number:06d}",
        "createdAt": iso(at),
        "processedAt": iso(at),
        "email": buyer and buyer["defaultEmailAddress"]["emailAddress"],
        "phone": None,
        "note": None,
        "tags": [],
        "poNumber": None,
        "sourceName": pick(seed, ("web", "web", "pos"), "source", number),
        "customerLocale": "en",
        "currencyCode": CURRENCY,
        "presentmentCurrencyCode": CURRENCY,
        "taxesIncluded": True,
        "taxExempt": False,
        "discountCodes": [],
        "paymentGatewayNames": ["bogus"],
        "subtotalLineItemsQuantity": quantity,
        "currentSubtotalLineItemsQuantity": quantity,
        "totalWeight": str(400 * quantity),
        "customer": buyer and {"id": buyer["id"]},
        "billingAddress": address,
        "shippingAddress": address,
        "lineItems": [item for _, item in lines],
        **_NEW_ORDER,
        **_order_money(subtotal, shipping=0 if subtotal >= 5000 else 495),
    }


def _order_money(subtotal: int, shipping: int) -> Record:
    total = subtotal + shipping
    return {
        "subtotalPriceSet": money_bag(subtotal),
        "totalDiscountsSet": money_bag(0),
        "totalShippingPriceSet": money_bag(shipping),
        "totalTaxSet": money_bag(total - round(total * 100 / (100 + VAT_PERCENT))),
        "totalPriceSet": money_bag(total),
        "currentTotalPriceSet": money_bag(total),
        "totalRefundedSet": money_bag(0),
        "totalOutstandingSet": money_bag(total),
    }


def _line_item(seed: int, order_number: int, position: int) -> tuple[int, Record]:
    product_number = 1 + int(roll(seed, "product", order_number, position) * PRODUCT_COUNT)
    title, _, pence, options = _GOODS[product_number - 1]
    sizes = options.split()
    size = int(roll(seed, "size", order_number, position) * len(sizes))
    quantity = 1 + int(roll(seed, "quantity", order_number, position) ** 3 * 3)
    variant_number = product_number * 1000 + size + 1
    return pence * quantity, {
        "id": gid("LineItem", order_number * 1000 + position),
        "name": f"{title} - {sizes[size]}",
        "title": title,
        "variantTitle": sizes[size],
        "sku": f"TW-{variant_number}",
        "vendor": "Tidewater",
        "quantity": quantity,
        "currentQuantity": quantity,
        "unfulfilledQuantity": quantity,
        "requiresShipping": True,
        "taxable": True,
        "isGiftCard": False,
        "product": {"id": gid("Product", product_number)},
        "variant": {"id": gid("ProductVariant", variant_number)},
        "originalUnitPriceSet": money_bag(pence),
        "discountedTotalSet": money_bag(pence * quantity),
    }
