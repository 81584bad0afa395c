// The real oidc-provider on a free loopback port, which is printed, and a resource server that takes its tokens.
//
// node provider.mjs FOLDER     FOLDER holds node_modules/oidc-provider
//
// Refresh tokens rotate; one that is shown again after its successor was issued revokes everything (reuse detection).
// POST /_test/…     what a test does from outside:
//   reset           nothing has happened yet
//   authorise       a person authorises the client: answers with a first refresh token
//   expire          all access tokens are gone
//   withdraw        the person withdraws the authorisation
//   grace?times=N   a used refresh token is taken N times more (as many platforms do for a while)
//   answer?status=N&times=N&retry_after=N      the token endpoint answers so, before the provider sees the request
//   lose?times=N    the provider handles the request, and its answer is cut off
//   hold            token requests wait until `release`
//   until_held      answers as soon as one waits
//   release
// GET /_test/log    the token requests: grant type, how the client proved itself, status, error

import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const entry = path.join(process.argv[2], "node_modules", "oidc-provider", "lib", "index.js");
process.env.NODE_ENV = "test";
console.warn = console.info = () => {};
const { Provider } = await import(pathToFileURL(entry));

const rows = new Map();
const graces = new Map();
const fresh = () => ({ grace: 0, answer: null, lose: 0, held: null, log: [] });
let test = fresh();

class Rows {
  constructor(model) {
    this.model = model;
  }
  key(id) {
    return `${this.model}:${id}`;
  }
  async upsert(id, payload) {
    rows.set(this.key(id), payload);
  }
  async find(id) {
    return rows.get(this.key(id));
  }
  async findByUid() {}
  async findByUserCode() {}
  async destroy(id) {
    rows.delete(this.key(id));
  }
  async consume(id) {
    const taken = graces.get(id) ?? 0;
    graces.set(id, taken + 1);
    if (taken >= test.grace) rows.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }
  async revokeByGrantId(grantId) {
    for (const [key, row] of rows) if (row.grantId === grantId) rows.delete(key);
  }
}

const client = (id, method) => ({
  client_id: id,
  client_secret: "s3cr3t p+ss/w&rd:% 0123456789",
  token_endpoint_auth_method: method,
  grant_types: ["authorization_code", "refresh_token", "client_credentials"],
  redirect_uris: ["https://app.example/back"],
  scope: "openid offline_access orders.read",
});
const provider = new Provider("http://127.0.0.1/", {
  adapter: Rows,
  clients: [client("by:basic", "client_secret_basic"), client("by:post", "client_secret_post")],
  clientAuthMethods: ["client_secret_basic", "client_secret_post"],
  scopes: ["openid", "offline_access", "orders.read"],
  rotateRefreshToken: true,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (_ctx, audience) => ({ scope: "orders.read", audience, accessTokenFormat: "opaque" }),
    },
  },
  ttl: { AccessToken: 3600, ClientCredentials: 600, RefreshToken: 86_400, Grant: 86_400 },
  findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
});
const handle = provider.callback();

async function authorise() {
  const grant = new provider.Grant({ accountId: "merchant", clientId: "by:basic" });
  grant.addOIDCScope("openid offline_access");
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    accountId: "merchant",
    client: await provider.Client.find("by:basic"),
    grantId,
    gty: "authorization_code",
    scope: "openid offline_access",
  });
  return token.save();
}

function drop(...models) {
  for (const key of rows.keys()) if (models.includes(key.split(":")[0])) rows.delete(key);
}

async function outside(name, query, response) {
  const reply = (value) => response.setHeader("Content-Type", "application/json").end(JSON.stringify(value));
  const times = Number(query.get("times") ?? 1);
  if (name === "reset") {
    rows.clear();
    graces.clear();
    test = fresh();
  }
  if (name === "authorise") return reply({ refresh_token: await authorise() });
  if (name === "log") return reply(test.log);
  if (name === "expire") drop("AccessToken", "ClientCredentials");
  if (name === "withdraw") drop("Grant", "RefreshToken", "AccessToken");
  if (name === "grace") test.grace = times;
  if (name === "answer") test.answer = { times, status: Number(query.get("status")), after: query.get("retry_after") };
  if (name === "lose") test.lose = times;
  if (name === "hold") test.held = [];
  if (name === "until_held" && !test.held?.length) await new Promise((go) => (test.someone = go));
  if (name === "release") {
    const held = test.held ?? [];
    test.held = null;
    for (const go of held) go();
  }
  return reply({ held: test.held?.length ?? 0 });
}

async function orders(request, response) {
  const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
  const known = (await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token));
  if (!known) {
    response.writeHead(401, { "WWW-Authenticate": 'Bearer error="invalid_token"' });
    return response.end(`the token ${token} is not valid`);
  }
  const records = Array.from({ length: 3 }, (_, n) => ({ id: n + 1, updated_at: "2026-07-01T00:00:00Z" }));
  response.setHeader("Content-Type", "application/json");
  return response.end(JSON.stringify({ orders: records, scope: known.scope ?? null, audience: known.aud ?? null }));
}

function note(request, response) {
  const entry = { basic: (request.headers.authorization ?? "").startsWith("Basic "), form: "" };
  test.log.push(entry);
  const end = response.end.bind(response);
  response.end = (...given) => {
    entry.status = response.statusCode;
    entry.error = /"error":"(\w+)"/.exec(String(given[0] ?? ""))?.[1] ?? null;
    if (test.lose > 0 && response.statusCode === 200) {
      test.lose -= 1;
      entry.lost = true;
      return response.socket.destroy();
    }
    return end(...given);
  };
  const emit = request.emit.bind(request);
  request.emit = (event, ...given) => {
    if (event === "data") entry.form += String(given[0]);
    if (event === "end") entry.grant_type = new URLSearchParams(entry.form).get("grant_type");
    return emit(event, ...given);
  };
}

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, "http://127.0.0.1");
  if (url.pathname.startsWith("/_test/")) return outside(url.pathname.slice(7), url.searchParams, response);
  if (url.pathname === "/orders") return orders(request, response);
  if (url.pathname !== "/token") return handle(request, response);
  note(request, response);
  if (test.held) {
    await new Promise((go) => {
      test.held.push(go);
      test.someone?.();
    });
  }
  if (test.answer && test.answer.times > 0) {
    test.answer.times -= 1;
    response.writeHead(test.answer.status, test.answer.after ? { "Retry-After": test.answer.after } : {});
    return response.end("the token endpoint is out of order");
  }
  return handle(request, response);
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${server.address().port}\n`));
