// Uses what applications use of ioredis; ends with status 0 if every reply is right.
import assert from "node:assert/strict";
import { Redis } from "ioredis";

const redis = new Redis(process.env.REDIS_URL);
const second = redis.duplicate();
await redis.flushall();

assert.equal(await redis.set("a", "1", "EX", 100), "OK");
assert.equal(await redis.incr("a"), 2);
assert.deepEqual(await redis.hset("h", { x: "1", y: "2" }), 2);
assert.deepEqual(await redis.hgetall("h"), { x: "1", y: "2" });
assert.deepEqual(await redis.pipeline().get("a").hget("h", "x").lpush("a", "no").exec().then((all) =>
  all.map(([error, value]) => (error ? "error" : value))), ["2", "1", "error"]);
assert.deepEqual(await redis.multi().incr("a").get("a").exec(), [[null, 3], [null, "3"]]);

await redis.mset(Object.fromEntries(Array.from({ length: 50 }, (_, number) => [`k:${number}`, number])));
const seen = new Set();
for await (const keys of redis.scanStream({ match: "k:*", count: 10 })) keys.forEach((key) => seen.add(key));
assert.equal(seen.size, 50);

redis.defineCommand("addTo", {
  numberOfKeys: 1,
  lua: "return redis.call('incrby', KEYS[1], ARGV[1])",
});
assert.equal(await redis.addTo("a", 4), 7);

const message = new Promise((resolve) => second.on("message", (channel, text) => resolve([channel, text])));
await second.subscribe("news");
await redis.publish("news", "hello");
assert.deepEqual(await message, ["news", "hello"]);
await second.unsubscribe("news");

const popped = second.blpop("list", 10);
await redis.rpush("list", "item");
assert.deepEqual(await popped, ["list", "item"]);

const id = await redis.xadd("stream", "*", "field", "value");
assert.deepEqual(await redis.xread("STREAMS", "stream", "0"), [["stream", [[id, ["field", "value"]]]]]);
await redis.xgroup("CREATE", "stream", "group", "0");
const [[, [[read]]]] = await redis.xreadgroup("GROUP", "group", "me", "STREAMS", "stream", ">");
assert.equal(read, id);
assert.equal(await redis.xack("stream", "group", id), 1);

await redis.select(3);
assert.equal(await redis.get("a"), null);
assert.equal((await redis.info()).includes("redis_version"), true);
await Promise.all([redis.quit(), second.quit()]);
