//! `-v`/`--volume` in its three forms, and `--mount`.

use crate::config::docker_run::text::{from_base, split_record};
use crate::config::docker_run::values;
use crate::model::container::{
    Bind, BindOptions, ImageOptions, Mount, MountKind, Opaque, Propagation, TmpfsOptions, VolumeOptions,
};

/// What one `-v` means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Volume {
    /// `-v TARGET`.
    Anonymous(String),
    /// `-v SOURCE:TARGET[:OPTIONS]`.
    Bind(Bind),
}

/// One `-v`; a host path that starts with a dot is taken from `base`.
pub(super) fn volume(text: &str, base: &str) -> Result<Volume, String> {
    if is_windows_path(text) {
        return Err(format!("{text:?} starts like a Windows path, the engine is a Linux one"));
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("{text:?} has an empty part"));
    }
    match parts.as_slice() {
        [target] => {
            check_target(target)?;
            Ok(Volume::Anonymous((*target).to_owned()))
        }
        [source, target, options @ ..] if options.len() <= 1 => {
            check_target(target)?;
            Ok(Volume::Bind(Bind {
                source: from_base(base, source),
                target: (*target).to_owned(),
                options: options.first().map(|&options| options.to_owned()),
            }))
        }
        _ => Err(format!("{text:?} has too many colons")),
    }
}

/// `C:\…` or a named pipe. The client reads any single letter before a colon as a drive, so a
/// volume whose name is one letter cannot be mounted by it either.
fn is_windows_path(text: &str) -> bool {
    let mut chars = text.chars();
    let drive = chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':');
    drive || text.starts_with("\\\\")
}

/// The engine takes absolute paths other than the root only.
fn check_target(target: &str) -> Result<(), String> {
    if !target.starts_with('/') {
        return Err(format!("the path {target:?} in the container is not absolute"));
    }
    if target.chars().all(|c| c == '/') {
        return Err("the root of the container cannot be mounted over".to_owned());
    }
    Ok(())
}

/// One `--mount`.
pub(super) fn mount(text: &str, base: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    for field in split_record(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match value {
            Some(value) => set_field(&mut mount, &key, value, base)?,
            None => set_bare(&mut mount, &key)?,
        }
    }
    check(&mount)?;
    Ok(mount)
}

/// A field without a value.
fn set_bare(mount: &mut Mount, key: &str) -> Result<(), String> {
    match key {
        "readonly" | "ro" => mount.read_only = true,
        "volume-nocopy" => mount.volume.get_or_insert_default().no_copy = true,
        "bind-nonrecursive" => mount.bind.get_or_insert_default().non_recursive = true,
        _ => return Err(format!("the field {key:?} needs a value")),
    }
    Ok(())
}

/// A field `key=value`.
fn set_field(mount: &mut Mount, key: &str, value: &str, base: &str) -> Result<(), String> {
    match key {
        "type" => mount.kind = kind(&value.to_lowercase())?,
        "source" | "src" => {
            mount.source = Some(from_base(base, value)).filter(|source| !source.is_empty());
        }
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = values::switch(value)?,
        "consistency" => {
            mount.consistency = Some(value.to_lowercase()).filter(|value| !value.is_empty());
        }
        _ if key.starts_with("bind-") => {
            set_bind(mount.bind.take(), key, value).map(|options| mount.bind = options)?;
        }
        _ if key.starts_with("volume-") => {
            set_volume(mount.volume.get_or_insert_default(), key, value)?;
        }
        "image-subpath" => {
            mount.image.get_or_insert_with(ImageOptions::default).subpath = non_empty(value);
        }
        "tmpfs-size" => {
            let options = mount.tmpfs.get_or_insert_with(TmpfsOptions::default);
            options.size_bytes = values::bytes(value)?;
        }
        "tmpfs-mode" => {
            let options = mount.tmpfs.get_or_insert_with(TmpfsOptions::default);
            options.mode = u32::from_str_radix(values::without_sign(value)?, 8)
                .map_err(|_error| format!("{value:?} is not an octal mode"))?;
        }
        _ => return Err(format!("it does not know the key {key:?}")),
    }
    Ok(())
}

fn kind(text: &str) -> Result<MountKind, String> {
    match text {
        "bind" => Ok(MountKind::Bind),
        "volume" => Ok(MountKind::Volume),
        "tmpfs" => Ok(MountKind::Tmpfs),
        "image" => Ok(MountKind::Image),
        "npipe" => Err("a named pipe (npipe) exists on Windows hosts only".to_owned()),
        "cluster" => Ok(MountKind::Cluster),
        "" => Err("the type is empty".to_owned()),
        other => Err(format!("{other:?} is not a type (bind, volume, tmpfs, image or cluster)")),
    }
}

/// `bind-*`. `bind-recursive=enabled` says nothing, so it makes no options either.
fn set_bind(options: Option<BindOptions>, key: &str, value: &str) -> Result<Option<BindOptions>, String> {
    if (key, value) == ("bind-recursive", "enabled") {
        return Ok(options);
    }
    let mut options = options.unwrap_or_default();
    match key {
        "bind-propagation" => options.propagation = propagation(&value.to_lowercase())?,
        "bind-nonrecursive" => options.non_recursive = values::switch(value)?,
        "bind-recursive" => match value {
            "disabled" => options.non_recursive = true,
            "writable" => options.read_only_non_recursive = true,
            "readonly" => options.read_only_force_recursive = true,
            _ => {
                return Err(format!("{key}={value:?} is none of enabled, disabled, writable, readonly"));
            }
        },
        _ => return Err(format!("it does not know the key {key:?}")),
    }
    Ok(Some(options))
}

fn propagation(text: &str) -> Result<Option<Propagation>, String> {
    Ok(Some(match text {
        "" => return Ok(None),
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        other => {
            return Err(format!("{other:?} is not a propagation ([r]private, [r]shared or [r]slave)"));
        }
    }))
}

/// `volume-*`.
fn set_volume(options: &mut VolumeOptions, key: &str, value: &str) -> Result<(), String> {
    let (name, text) = value.split_once('=').unwrap_or((value, ""));
    match key {
        "volume-subpath" => options.subpath = non_empty(value),
        "volume-nocopy" => options.no_copy = values::switch(value)?,
        "volume-driver" => options.driver = non_empty(value),
        "volume-label" if !name.is_empty() => {
            options.labels.insert(name.to_owned(), text.to_owned());
        }
        "volume-opt" if !name.is_empty() => {
            options.driver_options.insert(name.to_owned(), Opaque::from(text));
        }
        "volume-label" | "volume-opt" => {}
        _ => return Err(format!("it does not know the key {key:?}")),
    }
    Ok(())
}

fn non_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// What the fields must be together.
fn check(mount: &Mount) -> Result<(), String> {
    if mount.target.is_empty() {
        return Err("the target is missing".to_owned());
    }
    check_target(&mount.target)?;
    for (given, kind, group) in [
        (mount.bind.is_some(), MountKind::Bind, "bind-*"),
        (mount.volume.is_some(), MountKind::Volume, "volume-*"),
        (mount.image.is_some(), MountKind::Image, "image-*"),
        (mount.tmpfs.is_some(), MountKind::Tmpfs, "tmpfs-*"),
    ] {
        if given && mount.kind != kind {
            return Err(format!("{group} options do not fit the mount's type"));
        }
    }
    match (mount.kind, mount.source.as_deref()) {
        (MountKind::Bind, Some(source)) if source.starts_with('/') => {}
        (MountKind::Bind, Some(source)) => {
            return Err(format!("the source {source:?} is not an absolute path"));
        }
        (MountKind::Bind | MountKind::Image, None) => {
            return Err("the source is missing".to_owned());
        }
        (MountKind::Tmpfs, Some(_)) => return Err("a tmpfs has no source".to_owned()),
        _ => {}
    }
    let Some(bind) = &mount.bind else {
        return Ok(());
    };
    if (bind.read_only_non_recursive || bind.read_only_force_recursive) && !mount.read_only {
        return Err("bind-recursive=writable and =readonly need readonly as well".to_owned());
    }
    if bind.read_only_force_recursive && bind.propagation != Some(Propagation::Rprivate) {
        return Err("bind-recursive=readonly needs bind-propagation=rprivate".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, target: &str, options: Option<&str>) -> Volume {
        Volume::Bind(Bind { source: source.into(), target: target.into(), options: options.map(Into::into) })
    }

    #[test]
    fn volumes_in_three_forms() {
        assert_eq!(volume("/d", "/b"), Ok(Volume::Anonymous("/d".into())));
        assert_eq!(volume("name:/d", "/b"), Ok(bind("name", "/d", None)));
        assert_eq!(volume("./x:/d:ro,z", "/b"), Ok(bind("/b/x", "/d", Some("ro,z"))));
        assert_eq!(volume("~/x:/d", "/b"), Ok(bind("~/x", "/d", None)));
        for text in ["", ":/a", "/a:", "/a:/b:", "/a:/b:ro:x", "/a:b", "/a:/", "C:\\x:/a", "x"] {
            assert!(volume(text, "/b").is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_are_checked_as_a_whole() {
        let full = mount("type=bind,src=./x,dst=/y,ro,bind-propagation=rslave", "/b").unwrap();
        assert_eq!(full.source.as_deref(), Some("/b/x"));
        assert!(full.read_only);
        assert!(mount("type=volume,dst=/x,volume-opt=o=user=a", "/b").is_ok());
        for text in [
            "type=bind,dst=/x",
            "type=tmpfs,dst=/x,src=/y",
            "dst=x",
            "type=volume,dst=/x,tmpfs-size=1m",
            "type=bind,src=/a,dst=/x,bind-recursive=readonly",
            "type=floppy,dst=/x",
            "dst=/x,what=1",
            "dst=/x,what",
        ] {
            assert!(mount(text, "/b").is_err(), "{text}");
        }
    }
}
