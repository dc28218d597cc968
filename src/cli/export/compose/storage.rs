//! What is mounted into a container: volumes, paths of the host, memory.
//!
//! Must never make a volume with another driver or other options than its line says without telling so.

use crate::cli::export::compose::{Service, Shared};
use crate::model::container::{Mount, MountKind, VolumeOptions};
use serde_json::{Map, Value, json};

pub(super) fn put(service: &mut Service<'_>, shared: &mut Shared) {
    let spec = &service.decl.spec;
    let mut volumes = Vec::new();
    for bind in &spec.binds {
        if !bind.is_host_path() {
            let named = shared.volumes.entry(bind.source.clone()).or_default();
            if let Some(driver) = &spec.volume_driver {
                named.insert("driver".to_owned(), json!(driver));
            }
        }
        let options = bind.options.as_ref().map_or_else(String::new, |options| format!(":{options}"));
        volumes.push(json!(format!("{}:{}{options}", bind.source, bind.target)));
    }
    volumes.extend(spec.anonymous_volumes.iter().map(|target| json!(target)));
    if spec.volume_driver.is_some() && !spec.anonymous_volumes.is_empty() {
        service.leave("--volume-driver", "compose gives none to a volume without a name");
    }
    for mount in &spec.mounts {
        volumes.extend(mounted(service, shared, mount));
    }
    service.put("volumes", json!(volumes));
    let memory = spec
        .tmpfs
        .iter()
        .map(|(path, options)| if options.is_empty() { path.clone() } else { format!("{path}:{options}") });
    service.put("tmpfs", memory.collect());
    // Each is a container of another program's, not a service of this file.
    service.put("volumes_from", spec.volumes_from.iter().map(|from| format!("container:{from}")).collect());
    service.put("storage_opt", json!(spec.storage_options));
    service.put_flag("read_only", spec.read_only);
}

/// A `--mount` in compose's long form.
fn mounted(service: &mut Service<'_>, shared: &mut Shared, mount: &Mount) -> Option<Value> {
    let kind = match mount.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
        MountKind::Npipe => "npipe",
        MountKind::Cluster => "cluster",
    };
    let mut one =
        Map::from_iter([("type".to_owned(), json!(kind)), ("target".to_owned(), json!(mount.target))]);
    let mut add = |key: &str, value: Value| one.insert(key.to_owned(), value);
    if let Some(source) = &mount.source {
        add("source", json!(source));
    }
    if mount.read_only {
        add("read_only", json!(true));
    }
    if let Some(consistency) = &mount.consistency {
        add("consistency", json!(consistency));
    }
    if mount.kind == MountKind::Bind {
        // As `docker run --mount`, which makes no path.
        add("bind", json!(bind(mount)));
    }
    if let Some(tmpfs) = &mount.tmpfs {
        let mut about = Map::new();
        if tmpfs.size_bytes > 0 {
            about.insert("size".to_owned(), json!(tmpfs.size_bytes));
        }
        if tmpfs.mode > 0 {
            about.insert("mode".to_owned(), json!(tmpfs.mode));
        }
        add("tmpfs", Value::Object(about));
    }
    if let Some(subpath) = mount.image.as_ref().and_then(|image| image.subpath.as_ref()) {
        add("image", json!({ "subpath": subpath }));
    }
    if let Some(volume) = &mount.volume {
        let about = volume_of(volume);
        if !about.is_empty() {
            add("volume", Value::Object(about));
        }
    }
    if mount.kind == MountKind::Volume {
        named(service, shared, mount);
    }
    Some(Value::Object(one))
}

fn bind(mount: &Mount) -> Map<String, Value> {
    let mut about = Map::from_iter([("create_host_path".to_owned(), json!(false))]);
    let Some(bind) = &mount.bind else { return about };
    if let Some(propagation) = bind.propagation {
        about.insert("propagation".to_owned(), json!(format!("{propagation:?}").to_lowercase()));
    }
    let recursive = [
        (bind.non_recursive, "disabled"),
        (bind.read_only_non_recursive, "writable"),
        (bind.read_only_force_recursive, "readonly"),
    ];
    if let Some((_, word)) = recursive.iter().find(|(on, _)| *on) {
        about.insert("recursive".to_owned(), json!(word));
    }
    about
}

fn volume_of(volume: &VolumeOptions) -> Map<String, Value> {
    let mut about = Map::new();
    if volume.no_copy {
        about.insert("nocopy".to_owned(), json!(true));
    }
    if let Some(subpath) = &volume.subpath {
        about.insert("subpath".to_owned(), json!(subpath));
    }
    about
}

/// What is said of a volume itself: in compose it stands at its name.
fn named(service: &mut Service<'_>, shared: &mut Shared, mount: &Mount) {
    let options = mount.volume.as_ref();
    let driver = options.and_then(|volume| volume.driver.as_ref());
    let labels = options.map(|volume| &volume.labels).filter(|labels| !labels.is_empty());
    for name in options.iter().flat_map(|volume| volume.driver_options.keys()) {
        service.leave(&format!("--mount volume-opt={name}"), "it may hold a secret");
    }
    let Some(source) = &mount.source else {
        if driver.is_some() || labels.is_some() {
            let why = "compose says driver and labels of volumes with a name only";
            service.leave(&format!("--mount target={}", mount.target), why);
        }
        return;
    };
    let volume = shared.volumes.entry(source.clone()).or_default();
    if let Some(driver) = driver {
        volume.insert("driver".to_owned(), json!(driver));
    }
    if let Some(labels) = labels {
        volume.insert("labels".to_owned(), json!(labels));
    }
}
