// Runs jobs in BullMQ: results, retries, failures, delays, priorities, parents; status 0 if all is right.
import assert from "node:assert/strict";
import { FlowProducer, Queue, QueueEvents, Worker } from "bullmq";

const { hostname: host, port } = new URL(process.env.REDIS_URL);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const queue = new Queue("jobs", { connection });
await queue.obliterate({ force: true });
const events = new QueueEvents("jobs", { connection });
await events.waitUntilReady();
const done = [];
const worker = new Worker("jobs", async (job) => {
  done.push(job.name);
  if (job.name === "add") return job.data.x + job.data.y;
  if (job.name === "retried" && job.attemptsMade < 2) throw new Error("not yet");
  if (job.name === "fails") throw new Error("it always fails");
  if (job.name === "parent") return Object.values(await job.getChildrenValues()).sort();
  await job.updateProgress(50);
  return `done after ${job.attemptsMade}`;
}, { connection });
worker.on("error", (error) => { throw error; });

const limit = 30000;
const wait = (job) => job.waitUntilFinished(events, limit);
assert.equal(await wait(await queue.add("add", { x: 2, y: 3 })), 5);
assert.equal(await wait(await queue.add("retried", {}, { attempts: 3, backoff: 10 })), "done after 2");
await assert.rejects(wait(await queue.add("fails", {})), /it always fails/);
assert.equal(await wait(await queue.add("later", {}, { delay: 200 })), "done after 0");
const bulk = await queue.addBulk([1, 2, 3].map((x) => ({ name: "add", data: { x, y: x } })));
assert.deepEqual(await Promise.all(bulk.map(wait)), [2, 4, 6]);

await worker.pause();
done.length = 0;
const ranked = [await queue.add("low", {}, { priority: 9 }), await queue.add("high", {}, { priority: 1 })];
worker.resume();
await Promise.all(ranked.map(wait));
assert.deepEqual(done, ["high", "low"]);

const flow = new FlowProducer({ connection });
const tree = await flow.add({
  name: "parent", queueName: "jobs",
  children: [1, 2].map((x) => ({ name: "add", queueName: "jobs", data: { x, y: 10 } })),
});
assert.deepEqual(await wait(tree.job), [11, 12]);

const counts = await queue.getJobCounts();
assert.equal(counts.failed, 1);
assert.equal(counts.completed, 11);
assert.equal((await queue.getFailed())[0].failedReason, "it always fails");
await Promise.all([worker.close(), events.close(), flow.close(), queue.close()]);
