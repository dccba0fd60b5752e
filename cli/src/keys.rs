//! `trireme keys`: API keys, through a coordinator with an admin key, or directly in the store for the first one.

use std::{
    collections::BTreeSet,
    io::Read,
    time::{SystemTime, UNIX_EPOCH},
};

use trireme_backend::{Access, Quota, Scope};
use trireme_backend_cluster::store::Store;
use trireme_coordinator::{KeyList, KeyText, KeyView, Minting, NewKey, mint};
use trireme_model::{KeyId, Ms, Rate};

use crate::{
    client::Client,
    command::{CreateKey, Keys, KeysAction},
    exit::{Code, Failure, note, say},
    fleet,
    settings::Settings,
};

/// Longest key that is read from standard input, in bytes.
const MAX_INPUT: u64 = 4096;

/// Where keys are.
enum Place {
    Api(Client),
    Store(Store),
}

/// `trireme keys …`
pub async fn keys(args: Keys, settings: Settings) -> Result<(), Failure> {
    if let KeysAction::Hash = args.action {
        return hash();
    }
    let place = match args.store {
        true => Place::Store(fleet::store(&settings).await?),
        false => Place::Api(Client::new(&args.server)?),
    };
    match args.action {
        KeysAction::Create(new) => create(&place, new).await,
        KeysAction::List { json } => list(&place, json).await,
        KeysAction::Revoke { id } => revoke(&place, &id).await,
        KeysAction::Hash => Ok(()),
    }
}

async fn create(place: &Place, args: CreateKey) -> Result<(), Failure> {
    let rate = args.submits_per_minute.map(|per_minute| Rate {
        per_minute,
        // ten seconds' worth at once
        burst: args.burst.unwrap_or(per_minute.div_ceil(6)),
    });
    let quota = Quota { submits: rate, in_flight: args.runs_in_flight };
    let scopes: BTreeSet<Scope> = args.scopes.into_iter().map(Scope::from).collect();
    let new = NewKey { name: args.name, tenant: args.tenant, scopes, quota };
    let view = match place {
        Place::Api(client) => {
            let request = client.post("/v1/keys").json(&new);
            client.json::<KeyView>(request).await?
        }
        Place::Store(store) => {
            let (key, text) = mint(Minting::from(new), now()).map_err(Failure::usage)?;
            // dying behind this leaves a key that nobody has: it is listed, and can be revoked
            store.put_key(key.clone()).await?;
            KeyView { key: Some(text.expose().to_owned()), ..key.into() }
        }
    };
    if args.json {
        say(serde_json::to_string(&view).map_err(anyhow::Error::from)?);
    } else {
        note(format_args!("key {} of tenant {}; it is shown only now", view.id, view.tenant));
        say(view.key.unwrap_or_default());
    }
    Ok(())
}

async fn list(place: &Place, json: bool) -> Result<(), Failure> {
    let keys = match place {
        Place::Api(client) => client.json::<KeyList>(client.get("/v1/keys")).await?,
        Place::Store(store) => KeyList { keys: store.keys().await?.into_iter().map(KeyView::from).collect() },
    };
    if json {
        say(serde_json::to_string(&keys).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    for key in keys.keys {
        let scopes = serde_json::to_value(&key.scopes).map_err(anyhow::Error::from)?;
        let scopes: Vec<&str> = scopes.as_array().into_iter().flatten().filter_map(|s| s.as_str()).collect();
        let Quota { submits, in_flight } = key.quota;
        let submits = submits.map_or("-".into(), |rate| format!("{}/min", rate.per_minute));
        let runs = in_flight.map_or("-".into(), |runs| runs.to_string());
        let (id, tenant, scopes) = (key.id, key.tenant, scopes.join(","));
        say(format_args!("{id}  {tenant:16}  {scopes:16}  {submits:>10}  {runs:>6}  {}", key.name));
    }
    Ok(())
}

async fn revoke(place: &Place, id: &KeyId) -> Result<(), Failure> {
    match place {
        Place::Api(client) => drop(client.send(client.delete(&format!("/v1/keys/{id}"))).await?),
        Place::Store(store) => {
            if !store.drop_key(id).await? {
                return Err(Failure::new(Code::Usage, format!("there is no key {id} in the store")));
            }
        }
    }
    note(format_args!("key {id} is revoked; every coordinator refuses it within 5 s"));
    Ok(())
}

/// Nothing is stored: the key may come from anywhere, its hash goes into the configuration.
fn hash() -> Result<(), Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_INPUT).read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("standard input: {error}")))?;
    let text = text.trim();
    if text.len() < 32 {
        return Err(Failure::usage("a key has at least 32 bytes; give it on standard input"));
    }
    say(KeyText::from(text.to_owned()).sha256());
    Ok(())
}

fn now() -> Ms {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as Ms)
}
