// Uses what applications use of node-redis; ends with status 0 if every reply is right.
import assert from "node:assert/strict";
import { createClient, defineScript } from "redis";

const scripts = {
  addTo: defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: "return redis.call('incrby', KEYS[1], ARGV[1])",
    parseCommand(parser, key, count) {
      parser.pushKey(key);
      parser.push(String(count));
    },
    transformReply: undefined,
  }),
};
const redis = createClient({ url: process.env.REDIS_URL, scripts });
const second = redis.duplicate();
await Promise.all([redis.connect(), second.connect()]);
await redis.flushAll();

assert.equal(await redis.set("a", "1", { EX: 100 }), "OK");
assert.equal(await redis.incr("a"), 2);
assert.equal(await redis.hSet("h", { x: "1", y: "2" }), 2);
assert.deepEqual({ ...(await redis.hGetAll("h")) }, { x: "1", y: "2" });
assert.deepEqual(await redis.multi().incr("a").get("a").exec(), [3, "3"]);
assert.deepEqual(await Promise.all([redis.get("a"), redis.hLen("h")]), ["3", 2]);
await redis.zAdd("z", [{ score: 1.5, value: "m" }]);
assert.deepEqual((await redis.zRangeWithScores("z", 0, -1)).map((one) => [one.value, one.score]), [["m", 1.5]]);
await redis.watch("a");
await second.set("a", "9");
await assert.rejects(redis.multi().get("a").exec());

await redis.mSet(Array.from({ length: 50 }, (_, number) => [`k:${number}`, String(number)]));
const seen = new Set();
for await (const keys of redis.scanIterator({ MATCH: "k:*", COUNT: 10 })) keys.forEach((key) => seen.add(key));
assert.equal(seen.size, 50);
assert.equal(await redis.addTo("n", 4), 4);

let received;
const message = new Promise((resolve) => (received = resolve));
await second.subscribe("news", (text) => received(text));
await redis.publish("news", "hello");
assert.equal(await message, "hello");
await second.unsubscribe("news");

const popped = second.blPop("list", 10);
await redis.rPush("list", "item");
assert.deepEqual({ ...(await popped) }, { key: "list", element: "item" });

const id = await redis.xAdd("stream", "*", { field: "value" });
assert.equal((await redis.xRange("stream", "-", "+"))[0].id, id);
await redis.xGroupCreate("stream", "group", "0");
const [read] = await redis.xReadGroup("group", "me", { key: "stream", id: ">" });
assert.equal(read.messages[0].id, id);
assert.equal(await redis.xAck("stream", "group", id), 1);
await Promise.all([redis.close(), second.close()]);
