//! RabbitMQ: whether it lets us do what we do, and whether the queues are as configured.

use std::time::{Duration, Instant};

use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Finding, LIMIT};
use crate::{
    Config,
    broker::{self, Error, Link, Priority, topology},
};

/// Connecting takes a few round trips; a broker that takes longer delays every hint.
const SLOW: Duration = Duration::from_secs(1);
/// Most of a frame that is read for the version.
const HEAD: usize = 8 * 1024;

pub(super) async fn check(config: &Config, pools: &[String]) -> Vec<Finding> {
    let mut settings = broker::Config::new(&config.amqp_url, &config.prefix);
    settings.connect_timeout = LIMIT;
    settings.tls = config.amqp_tls.clone();
    settings.queue_type = config.queue_type;
    let begun = Instant::now();
    let mut link = match Link::open(&settings, "doctor").await {
        Ok(link) => link,
        Err(error) => return vec![unreachable(&error)],
    };
    let took = begun.elapsed();
    let text = format!("connects within {:.0} ms", took.as_secs_f64() * 1000.0);
    let mut found = vec![if took > SLOW {
        Finding::warn(
            "rabbitmq.connection",
            format!("{text}: each hint waits for it: look at its load and the network"),
        )
    } else {
        Finding::ok("rabbitmq.connection", text)
    }];
    found.push(version(&settings.url).await);
    found.push(scratch(&mut link, &settings).await);
    for pool in pools {
        found.extend(queues(&mut link, &settings, pool).await);
    }
    link.close().await;
    found
}

fn unreachable(error: &Error) -> Finding {
    let text = error.to_string();
    let cure = if text.contains("ACCESS_REFUSED") || text.contains("403") {
        "it refuses the user or password, or the user may not use the vhost: check amqp.url, and `rabbitmqctl \
         set_permissions`"
    } else if text.contains("NOT_ALLOWED") || text.contains("530") {
        "the vhost does not exist or the user may not use it: check amqp.url, and `rabbitmqctl list_vhosts`"
    } else {
        "it can't be reached: check amqp.url, the network and that RabbitMQ runs"
    };
    Finding::fail("rabbitmq.connection", format!("{cure} ({text})"))
}

/// The version stands in the first frame that the broker sends, which the client library keeps to itself.
async fn version(url: &str) -> Finding {
    let name = "rabbitmq.version";
    let told = async {
        let uri: AMQPUri = url.parse().ok()?;
        if uri.scheme == AMQPScheme::AMQPS {
            return None;
        }
        let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await.ok()?;
        stream.write_all(b"AMQP\0\0\x09\x01").await.ok()?;
        let mut head = vec![0; HEAD];
        let mut got = 0;
        // the frame may come in parts; its length stands in bytes 3 to 6
        while got < 7 || (got < HEAD && got < 7 + length(&head)) {
            let more = stream.read(&mut head[got..]).await.ok()?;
            if more == 0 {
                break;
            }
            got += more;
        }
        long_string(&head[..got], b"\x07versionS")
    };
    let told = tokio::time::timeout(LIMIT, told).await.ok().flatten();
    let Some(version) = told else {
        return Finding::ok(name, "not told on this connection: `rabbitmqctl version`");
    };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    match (parts.next(), parts.next()) {
        (Some(3), Some(0..=7)) | (Some(0..=2), _) => {
            Finding::fail(name, format!("{version}: not tested with anything before 3.8: upgrade it"))
        }
        _ => Finding::ok(name, version),
    }
}

fn length(head: &[u8]) -> usize {
    let bytes = [head[3], head[4], head[5], head[6]];
    usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(HEAD)
}

/// The text behind `name` in a field table.
fn long_string(frame: &[u8], name: &[u8]) -> Option<String> {
    let at = frame.windows(name.len()).position(|window| window == name)? + name.len();
    let size = u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?) as usize;
    String::from_utf8(frame.get(at + 4..at + 4 + size)?.to_vec()).ok()
}

/// Declares a queue of its own below our prefix, sends a message through it, and deletes it.
async fn scratch(link: &mut Link, settings: &broker::Config) -> Finding {
    let name = "rabbitmq.permissions";
    let queue = format!("{}.q.doctor-{}", settings.prefix, uuid::Uuid::new_v4().simple());
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let denied = |what: &str, error: &Error| {
        let prefix = &settings.prefix;
        Finding::fail(
            name,
            format!(
                "may not {what} {prefix}.q.*: rabbitmqctl set_permissions -p VHOST USER '^{prefix}\\.q\\.' \
                 '^({prefix}\\.q\\.|amq\\.default)' '^{prefix}\\.q\\.' ({error})"
            ),
        )
    };
    // a vhost may have another default, and only a classic queue can be exclusive
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    let declare = link.channel.queue_declare(queue.as_str().into(), options, arguments);
    if let Err(error) = link.ask("declare queue", declare).await {
        let _ = link.open_channel().await;
        return denied("declare", &error);
    }
    let confirms = link.channel.confirm_select(ConfirmSelectOptions::default());
    if let Err(error) = link.ask("confirm", confirms).await {
        return denied("publish to", &error);
    }
    let publish = async {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = link
            .channel
            .basic_publish("".into(), queue.as_str().into(), options, b"doctor", BasicProperties::default())
            .await?;
        sent.await.map(drop)
    };
    if let Err(error) = link.ask("publish", publish).await {
        let _ = link.open_channel().await;
        return denied("publish to", &error);
    }
    let get = link.channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
    let got = match link.ask("get", get).await {
        Ok(got) => got,
        // a coordinator's account need not, and docs/operations.md gives it no more than it needs
        Err(error) if error.to_string().contains("ACCESS_REFUSED") => {
            let _ = link.open_channel().await;
            let text = "declares and publishes, may not consume: enough for a coordinator, not for a worker";
            return Finding::warn(name, text);
        }
        Err(error) => {
            let _ = link.open_channel().await;
            return denied("consume from", &error);
        }
    };
    let _ = topology::delete(link, queue.as_str().into()).await;
    match got {
        Some(_) => Finding::ok(name, "declares, publishes, consumes and deletes"),
        None => {
            Finding::fail(name, "a message that was confirmed did not come back: check policies of the vhost")
        }
    }
}

/// Whether the queues of a pool are as configured, and who consumes them.
async fn queues(link: &mut Link, settings: &broker::Config, pool: &str) -> Vec<Finding> {
    let (mut found, mut served, mut waiting) = (Vec::new(), 0, 0);
    for priority in Priority::ALL {
        let check = format!("queue {pool}.{}", priority.name());
        let queue = match topology::queue_name(&settings.prefix, pool, priority) {
            Ok(queue) => queue,
            Err(error) => {
                found.push(Finding::fail(check, error.to_string()));
                continue;
            }
        };
        match topology::ask(link, queue.clone()).await {
            Ok(None) => {
                found.push(Finding::ok(check, "does not exist yet: the first worker makes it"));
                continue;
            }
            Ok(Some((messages, consumers))) => {
                served = served.max(consumers);
                waiting += messages;
                // the same declaration as a worker's: the broker compares
                match topology::declare(link, settings, &queue).await {
                    Ok(()) => found.push(Finding::ok(
                        check,
                        format!("{}, {messages} messages, {consumers} consumers", settings.queue_type.name()),
                    )),
                    Err(error) => {
                        found.push(Finding::fail(check, error.to_string()));
                        if link.open_channel().await.is_err() {
                            return found;
                        }
                    }
                }
            }
            Err(error) => {
                found.push(Finding::fail(check, error.to_string()));
                if link.open_channel().await.is_err() {
                    return found;
                }
            }
        }
    }
    found.push(match (served, waiting) {
        (0, 0) => Finding::warn(
            format!("pool {pool}"),
            format!("no worker serves it: start one (trireme worker --pools {pool}), or take it out of worker.pools"),
        ),
        (0, waiting) => Finding::fail(
            format!("pool {pool}"),
            format!("no worker serves it and {waiting} hints wait: start one (trireme worker --pools {pool})"),
        ),
        (consumers, _) => Finding::ok(format!("pool {pool}"), format!("served by {consumers} consumers")),
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_table() {
        let frame = b"\x01\0\0\0\0\0\x40..\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8\xce";
        assert_eq!(long_string(frame, b"\x07versionS").as_deref(), Some("3.10.8"));
        assert_eq!(long_string(b"\x07versionS\0\0\0\xff3", b"\x07versionS"), None);
        assert_eq!(length(frame), 0x40);
    }
}
