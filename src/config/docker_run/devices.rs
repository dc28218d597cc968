//! `--device`, `--gpus`, `--ulimit`, block IO limits and device rules.

use std::collections::BTreeMap;

use crate::config::docker_run::text::{clean_path, split_record};
use crate::config::docker_run::values;
use crate::model::container::{BlkioWeightDevice, DeviceMapping, DeviceRequest, ThrottleDevice, Ulimit};

/// What one `--device` means.
pub(super) enum Device {
    /// A path of the host.
    Mapping(DeviceMapping),
    /// A name of the container device interface.
    Cdi(String),
}

/// `--device HOST[:CONTAINER][:PERMISSIONS]` or `VENDOR/CLASS=NAME`.
pub(super) fn device(text: &str) -> Result<Device, String> {
    if is_cdi_name(text) {
        return Ok(Device::Cdi(text.to_owned()));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [""] | ["", ..] => return Err(format!("{text:?} names no device")),
        [path] => (clean_path(path), *path, "rwm"),
        [path, mode] if is_device_mode(mode) => (clean_path(path), *path, *mode),
        [host, path] => ((*host).to_owned(), *path, "rwm"),
        [host, path, mode] if is_device_mode(mode) => ((*host).to_owned(), *path, *mode),
        [_, _, mode] => return Err(format!("{mode:?} is not made of r, w and m")),
        _ => return Err(format!("{text:?} has too many colons")),
    };
    if !container.starts_with('/') {
        return Err(format!("{container:?} is not an absolute path"));
    }
    let in_container = match parts.as_slice() {
        [_, path, _] => (*path).to_owned(),
        [_, path] if !is_device_mode(path) => clean_path(path),
        _ => host.clone(),
    };
    // In the three-part form the client takes a path that looks like permissions for them too;
    // such a path is not absolute, so it was refused above.
    Ok(Device::Mapping(DeviceMapping { host, container: in_container, permissions: permissions.to_owned() }))
}

/// Each of `r`, `w`, `m` at most once, and at least one.
fn is_device_mode(text: &str) -> bool {
    let distinct = |c: char| text.matches(c).count() <= 1;
    !text.is_empty() && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm') && distinct(c))
}

/// `vendor/class=name`.
fn is_cdi_name(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else {
        return false;
    };
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    is_cdi_part(vendor, "_-.", true) && is_cdi_part(class, "_-.", true) && is_cdi_part(name, "_-.:", false)
}

fn is_cdi_part(text: &str, inner: &str, letter_first: bool) -> bool {
    let first_fits =
        text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || (!letter_first && c.is_ascii_digit()));
    first_fits
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || inner.contains(c))
}

/// `--device-cgroup-rule 'c 1:3 rwm'`.
pub(super) fn cgroup_rule(text: &str) -> Result<String, String> {
    let number = |part: &str| part == "*" || (!part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let fields: Vec<&str> = text.split(' ').collect();
    if let [kind, numbers, access] = fields.as_slice()
        && matches!(*kind, "a" | "b" | "c")
        && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
        && (1..=3).contains(&access.len())
        && access.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
    {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not of the form \"c 1:3 rwm\""))
}

/// `--gpus all`, `--gpus 2`, `--gpus '"device=0,1",capabilities=compute'`.
pub(super) fn gpus(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    let mut seen: Vec<String> = Vec::new();
    let mut counted = false;
    let mut capabilities = None;
    for field in split_record(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value)),
            None => (field.clone(), None),
        };
        if seen.contains(&key) || (key == "count" && counted) {
            return Err(format!("the key {key:?} stands twice"));
        }
        seen.push(key.clone());
        match (key.as_str(), value) {
            (count, None) => (request.count, counted) = (gpu_count(count)?, true),
            ("count", Some(value)) => (request.count, counted) = (gpu_count(value)?, true),
            ("driver", Some(value)) => {
                request.driver = Some(value.to_owned()).filter(|name| !name.is_empty());
            }
            ("device", Some(value)) => request.device_ids = strings(value),
            ("capabilities", Some(value)) => capabilities = Some(strings(value)),
            ("options", Some(value)) => request.options = pairs(&split_record(value)?),
            (key, Some(_)) => {
                return Err(format!(
                    "it does not know the key {key:?} (driver, count, device, capabilities or options)"
                ));
            }
        }
    }
    if !counted && request.device_ids.is_empty() {
        request.count = 1;
    }
    request.capabilities = capabilities.unwrap_or_default();
    request.capabilities.push("gpu".to_owned());
    Ok(request)
}

fn gpu_count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    values::decimal(text).map_err(|problem| format!("{problem}, and not \"all\""))
}

fn strings(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// `name=value` fields; a bare name has an empty value, the last of one name wins.
pub(super) fn pairs(fields: &[String]) -> BTreeMap<String, String> {
    fields
        .iter()
        .map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// Names the engine knows for `--ulimit`.
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `--ulimit NAME=SOFT[:HARD]`.
pub(super) fn ulimit(text: &str) -> Result<(String, Ulimit), String> {
    let (name, limits) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form name=soft[:hard]"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("{name:?} is not a limit ({})", ULIMITS.join(", ")));
    }
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (values::decimal(soft)?, values::decimal(hard)?),
        None => {
            let soft = values::decimal(limits)?;
            (soft, soft)
        }
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("the soft limit {soft} is above the hard limit {hard}"));
    }
    Ok((name.to_owned(), Ulimit { soft, hard }))
}

/// Device and rest of `/dev/NAME:REST`.
fn device_and(text: &str) -> Result<(&str, &str), String> {
    text.split_once(':')
        .filter(|(path, _)| path.starts_with("/dev/"))
        .ok_or_else(|| format!("{text:?} is not of the form /dev/NAME:NUMBER"))
}

/// `--device-read-bps` and its write twin.
pub(super) fn rate_in_bytes(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device_and(text)?;
    Ok(ThrottleDevice { path: path.to_owned(), rate: values::bytes(rate)? })
}

/// `--device-read-iops` and its write twin.
pub(super) fn rate_in_operations(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device_and(text)?;
    let rate = values::decimal(values::without_sign(rate)?)?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// `--blkio-weight-device`.
pub(super) fn weight(text: &str) -> Result<BlkioWeightDevice, String> {
    let (path, weight) = device_and(text)?;
    let weight = values::without_sign(weight)?
        .parse::<u16>()
        .ok()
        .filter(|weight| matches!(weight, 0 | 10..=1000))
        .ok_or_else(|| format!("{weight:?} is not a weight (10 to 1000, or 0)"))?;
    Ok(BlkioWeightDevice { path: path.to_owned(), weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(text: &str) -> (String, String, String) {
        match device(text) {
            Ok(Device::Mapping(d)) => (d.host, d.container, d.permissions),
            Ok(Device::Cdi(name)) => panic!("{name} is CDI"),
            Err(problem) => panic!("{text}: {problem}"),
        }
    }

    #[test]
    fn devices_in_all_forms() {
        let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(mapping("/dev/null"), of("/dev/null", "/dev/null", "rwm"));
        assert_eq!(mapping("/dev//null/"), of("/dev/null", "/dev/null", "rwm"));
        assert_eq!(mapping("/dev/a:r"), of("/dev/a", "/dev/a", "r"));
        assert_eq!(mapping("/dev/a:/dev/b/"), of("/dev/a", "/dev/b", "rwm"));
        assert_eq!(mapping("/dev/a:/dev/b:rw"), of("/dev/a", "/dev/b", "rw"));
        assert!(matches!(device("nvidia.com/gpu=all"), Ok(Device::Cdi(_))));
        for text in ["", ":/dev/a", "dev/a", "/dev/a:/dev/b:rx", "/a:/b:r:w", "/dev/a:rr"] {
            assert!(device(text).is_err(), "{text}");
        }
    }

    #[test]
    fn gpu_requests() {
        assert_eq!(gpus("all").unwrap().count, -1);
        assert_eq!(gpus("\"device=0,1\"").unwrap().device_ids, ["0", "1"]);
        assert_eq!(
            gpus("2,\"capabilities=compute,utility\"").unwrap().capabilities,
            ["compute", "utility", "gpu"]
        );
        assert_eq!(gpus("driver=nvidia").unwrap().count, 1);
        for text in ["", "x", "all,count=2", "driver=a,driver=b", "y=1"] {
            assert!(gpus(text).is_err(), "{text}");
        }
    }
}
