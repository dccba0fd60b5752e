//! About the least that W1 can cost with what the protocol keeps: the messages of the raw floor and, in batches as
//! large as the store's, what submit, claim and complete read and write of each task and of the join behind it, without
//! anything that decides.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::{StreamExt, stream};
use lapin::{message::Delivery, options::BasicAckOptions};
use redis::Cmd;

use super::{
    Mode,
    amqp::{Link, Pipeline},
    shapes::{PREFETCH, Single, Store, WINDOW, measured},
};

/// Tasks of a run and submits under way, as in W1; items of a batch and batches under way, two claims and two
/// completes, as in the store.
const WIDTH: usize = 100;
const BATCH: usize = 64;
const FLIGHTS: usize = 4;
const SUBMITS: usize = 32;
/// A measurement that takes longer failed: a message may be lost.
const LIMIT: Duration = Duration::from_secs(120);

/// KEYS due, run, log; ARGV how many values go to due, those, the fields of the run.
const SUBMIT: &str = "\
local n = 1 + ARGV[1]
redis.call('RPUSH', KEYS[3], '{\"at\":1764425364123,\"type\":\"run.started\"}')
redis.call('ZADD', KEYS[1], unpack(ARGV, 2, n))
redis.call('HSET', KEYS[2], unpack(ARGV, n + 1))
return 1";

/// KEYS due, then run and log of each run; ARGV place of the run, task and token of each item.
const CLAIM: &str = "\
local now = redis.call('TIME')[1] * 1000
local due, outs, logs, reply = {}, {}, {}, {}
for i = 1, #ARGV, 3 do
  local at, task, token = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local out, log, n = outs[at] or {}, logs[at] or {}, #due
  outs[at], logs[at] = out, log
  local run = KEYS[2 * at]
  local got = redis.call('HMGET', run, 'm', 's:' .. task, 'g:' .. task, 'b:' .. task)
  if string.sub(got[2], 1, 1) == '2' then
    out[#out + 1], out[#out + 2] = 's:' .. task, '3' .. token
    due[n + 1], due[n + 2] = now + 10000, run .. ':' .. task
    log[#log + 1] = '{\"at\":' .. now .. ',\"type\":\"task.started\",\"task\":\"' .. task .. '\",\"attempt\":1}'
    reply[#reply + 1], reply[#reply + 2] = got[3], got[4]
  end
end
redis.call('ZADD', KEYS[1], unpack(due))
for at, out in pairs(outs) do
  redis.call('RPUSH', KEYS[2 * at + 1], unpack(logs[at]))
  redis.call('HSET', KEYS[2 * at], unpack(out))
end
return cmsgpack.pack(reply)";

/// KEYS as above; ARGV place of the run, task, token and result of each item.
const COMPLETE: &str = "\
local now = redis.call('TIME')[1] * 1000
local due, outs, logs, done = {}, {}, {}, 0
for i = 1, #ARGV, 4 do
  local at, task, token = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local run, out, log = KEYS[2 * at], outs[at], logs[at]
  if not out then
    local joined = redis.call('HMGET', run, 's:output', 'g:output')
    out, log = { 's:output', joined[1] }, {}
    outs[at], logs[at] = out, log
  end
  local got, n = redis.call('HMGET', run, 'm', 's:' .. task, 'n:' .. task), #out
  if got[2] == '3' .. token then
    out[n + 1], out[n + 2], out[n + 3], out[n + 4] = 's:' .. task, '6' .. token, 'r:' .. task, ARGV[i + 3]
    due[#due + 1] = run .. ':' .. task
    log[#log + 1] = '{\"at\":' .. now .. ',\"type\":\"task.succeeded\",\"task\":\"' .. task .. '\",\"degraded\":false}'
    done = done + 1
  end
end
for at, out in pairs(outs) do
  redis.call('RPUSH', KEYS[2 * at + 1], unpack(logs[at]))
  redis.call('HSET', KEYS[2 * at], unpack(out))
end
redis.call('ZREM', KEYS[1], unpack(due))
return done";

/// `runs` runs of 100 tasks, a message of 256 bytes each, results of 256 bytes recorded.
///
/// # Errors
/// When the broker or the store fails, it takes longer than 120 s, or a step does not find what the one before it wrote.
pub async fn steps(amqp: &str, redis: &str, mode: Mode, runs: usize) -> anyhow::Result<Single> {
    let queue = format!("floor-{}-steps", std::process::id());
    let kept = Store::open(redis, &queue).await?;
    let (submit, claim, complete) =
        (kept.load(SUBMIT).await?, kept.load(CLAIM).await?, kept.load(COMPLETE).await?);
    let (out, inward) = (Link::open(amqp).await?, Link::open(amqp).await?);
    out.declare(&queue, mode).await?;
    let mut pipeline = Pipeline::new(&out, mode, WINDOW, true).await?;
    let consumer = inward.consume(&queue, PREFETCH).await?;

    let (processes, before) = measured();
    let start = Instant::now();
    let (store, tasks) = (&kept, runs * WIDTH);
    let publish = async {
        let submits = stream::iter(0..runs).map(|run| {
            let command = submit_of(store, &submit, run);
            async move { store.send::<i64>(&command).await.map(|_| run) }
        });
        let mut submits = std::pin::pin!(submits.buffered(SUBMITS));
        while let Some(run) = submits.next().await {
            let run = run?;
            for task in 0..WIDTH {
                let mut body = format!("{run} t{task} ").into_bytes();
                body.resize(256, b'.');
                pipeline.publish(&queue, body).await?;
            }
        }
        pipeline.settle().await?;
        anyhow::Ok(())
    };
    let work = async {
        let batches = consumer.ready_chunks(BATCH).map(|batch| {
            let (claim, complete) = (&claim, &complete);
            async move {
                let batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
                store.send::<Vec<u8>>(&step_of(store, claim, &batch, None)?).await?;
                let result = "r".repeat(256);
                let done: usize = store.send(&step_of(store, complete, &batch, Some(&result))?).await?;
                anyhow::ensure!(done == batch.len(), "{done} of {} tasks were held", batch.len());
                anyhow::Ok((batch.last().map(|message| message.delivery_tag), done))
            }
        });
        let mut batches = std::pin::pin!(batches.buffered(FLIGHTS));
        let mut left = tasks;
        while left > 0 {
            let (last, done) = batches.next().await.context("the consumer ended")??;
            left -= done;
            if let Some(last) = last {
                inward.channel.basic_ack(last, BasicAckOptions { multiple: true }).await?;
            }
        }
        anyhow::Ok(())
    };
    let all = async { futures::try_join!(publish, work) };
    tokio::time::timeout(LIMIT, all).await.context("not done within 120 s")??;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = processes.since(&before);
    out.delete(&queue).await?;
    kept.clean().await?;
    Ok(Single { per_second: tasks as f64 / seconds, cpu })
}

/// Spec, body and first state of each task, and their places in the due index.
fn submit_of(store: &Store, script: &str, run: usize) -> Cmd {
    let (mut command, key) = (redis::cmd("EVALSHA"), store.name(&format!("run:{run}")));
    command.arg(script).arg(3).arg(store.name("due")).arg(&key);
    command.arg(store.name(&format!("log:{run}"))).arg(2 * WIDTH);
    for task in 0..WIDTH {
        command.arg(1_764_425_364_123_u64).arg(format!("{key}:t{task}"));
    }
    let (spec, body, state) = ("g".repeat(45), "b".repeat(256), format!("2{}", "s".repeat(40)));
    command.arg("m").arg("h".repeat(60)).arg("g:output").arg(&spec).arg("s:output").arg(&state);
    for task in 0..WIDTH {
        command.arg(format!("g:t{task}")).arg(&spec).arg(format!("b:t{task}")).arg(&body);
        command.arg(format!("s:t{task}")).arg(&state).arg(format!("n:t{task}")).arg("output");
    }
    command
}

/// A batched step: a claim, or a complete where there is a result.
fn step_of(store: &Store, script: &str, batch: &[Delivery], result: Option<&str>) -> anyhow::Result<Cmd> {
    let (mut runs, mut items) = (Vec::<&str>::new(), Vec::with_capacity(batch.len()));
    for message in batch {
        let text = std::str::from_utf8(&message.data)?;
        let mut words = text.split_ascii_whitespace();
        let run = words.next().context("no run")?;
        let at = runs.iter().position(|known| *known == run).unwrap_or_else(|| {
            runs.push(run);
            runs.len() - 1
        });
        items.push((at + 1, words.next().context("no task")?));
    }
    let mut command = redis::cmd("EVALSHA");
    command.arg(script).arg(1 + 2 * runs.len()).arg(store.name("due"));
    for run in &runs {
        command.arg(store.name(&format!("run:{run}"))).arg(store.name(&format!("log:{run}")));
    }
    let mut token = String::new();
    for (at, task) in items {
        token.clear();
        write!(token, "1764425364.1.claim-of-a-worker-{task}")?;
        command.arg(at).arg(task).arg(&token);
        if let Some(result) = result {
            command.arg(result);
        }
    }
    Ok(command)
}
