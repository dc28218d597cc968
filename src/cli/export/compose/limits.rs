//! What a container may use: memory, processors, processes, block devices, devices.
//!
//! Must name every field of [`Resources`]: a new one does not build before it is decided about.

use crate::cli::export::compose::Service;
use crate::model::container::{DeviceRequest, Resources, ThrottleDevice};
use serde_json::{Map, Value, json};

pub(super) fn put(service: &mut Service<'_>) {
    let spec = &service.decl.spec;
    service.put("shm_size", json!(spec.shm_size_bytes));
    named(&spec.resources);
    memory(service, &spec.resources);
    processors(service, &spec.resources);
    blocks(service, &spec.resources);
    devices(service, &spec.resources);
}

/// A span as compose has it.
pub(super) fn micros(micros: i64) -> String {
    format!("{micros}us")
}

fn memory(service: &mut Service<'_>, resources: &Resources) {
    service.put_count("mem_limit", resources.memory_bytes);
    service.put_count("mem_reservation", resources.memory_reservation_bytes);
    service.put_count("memswap_limit", resources.memory_swap_bytes);
    service.put("mem_swappiness", json!(resources.memory_swappiness));
    service.put_flag("oom_kill_disable", resources.oom_kill_disable);
    service.put_count("oom_score_adj", resources.oom_score_adj);
    service.put_count("pids_limit", resources.pids_limit);
    let ulimits: Map<String, Value> = resources
        .ulimits
        .iter()
        .map(|(name, limit)| (name.clone(), json!({ "soft": limit.soft, "hard": limit.hard })))
        .collect();
    service.put("ulimits", Value::Object(ulimits));
}

fn processors(service: &mut Service<'_>, resources: &Resources) {
    if resources.nano_cpus > 0 {
        let (whole, part) = (resources.nano_cpus / 1_000_000_000, resources.nano_cpus % 1_000_000_000);
        let text = format!("{whole}.{part:09}");
        service.put("cpus", json!(text.trim_end_matches('0').trim_end_matches('.')));
    }
    service.put_count("cpu_shares", resources.cpu_shares);
    service.put_count("cpu_period", resources.cpu_period_micros);
    service.put_count("cpu_quota", resources.cpu_quota_micros);
    for (key, value) in [
        ("cpu_rt_period", resources.cpu_rt_period_micros),
        ("cpu_rt_runtime", resources.cpu_rt_runtime_micros),
    ] {
        if value != 0 {
            service.put(key, json!(micros(value)));
        }
    }
    service.put("cpuset", json!(resources.cpuset_cpus));
    if resources.cpuset_mems.is_some() {
        service.leave("--cpuset-mems", "compose has no key for it");
    }
    service.put("cgroup_parent", json!(resources.cgroup_parent));
}

fn blocks(service: &mut Service<'_>, resources: &Resources) {
    let mut all = Map::new();
    if resources.blkio_weight > 0 {
        all.insert("weight".to_owned(), json!(resources.blkio_weight));
    }
    let weights = &resources.blkio_weight_devices;
    if !weights.is_empty() {
        let list = weights.iter().map(|device| json!({ "path": device.path, "weight": device.weight }));
        all.insert("weight_device".to_owned(), list.collect());
    }
    for (key, devices) in [
        ("device_read_bps", &resources.device_read_bps),
        ("device_read_iops", &resources.device_read_iops),
        ("device_write_bps", &resources.device_write_bps),
        ("device_write_iops", &resources.device_write_iops),
    ] {
        if !devices.is_empty() {
            all.insert(key.to_owned(), devices.iter().map(throttle).collect());
        }
    }
    service.put("blkio_config", Value::Object(all));
}

fn throttle(device: &ThrottleDevice) -> Value {
    json!({ "path": device.path, "rate": device.rate })
}

fn devices(service: &mut Service<'_>, resources: &Resources) {
    let own = resources
        .devices
        .iter()
        .map(|device| format!("{}:{}:{}", device.host, device.container, device.permissions));
    let all: Vec<String> = own.chain(resources.cdi_devices.iter().cloned()).collect();
    service.put("devices", json!(all));
    service.put("device_cgroup_rules", json!(resources.device_cgroup_rules));
    let asked: Vec<Value> = resources.gpus.iter().map(request).collect();
    if !asked.is_empty() {
        service.put("deploy", json!({ "resources": { "reservations": { "devices": asked } } }));
    }
}

fn request(request: &DeviceRequest) -> Value {
    let DeviceRequest { driver, count, device_ids, capabilities, options } = request;
    let mut one = Map::from_iter([("capabilities".to_owned(), json!(capabilities))]);
    if let Some(driver) = driver {
        one.insert("driver".to_owned(), json!(driver));
    }
    if device_ids.is_empty() {
        one.insert("count".to_owned(), if *count < 0 { json!("all") } else { json!(count) });
    } else {
        one.insert("device_ids".to_owned(), json!(device_ids));
    }
    if !options.is_empty() {
        one.insert("options".to_owned(), json!(options));
    }
    Value::Object(one)
}

/// All there is to be said by the functions above.
const fn named(resources: &Resources) {
    let Resources {
        memory_bytes: _,
        memory_reservation_bytes: _,
        memory_swap_bytes: _,
        memory_swappiness: _,
        oom_kill_disable: _,
        oom_score_adj: _,
        nano_cpus: _,
        cpu_shares: _,
        cpu_period_micros: _,
        cpu_quota_micros: _,
        cpu_rt_period_micros: _,
        cpu_rt_runtime_micros: _,
        cpuset_cpus: _,
        cpuset_mems: _,
        pids_limit: _,
        cgroup_parent: _,
        ulimits: _,
        blkio_weight: _,
        blkio_weight_devices: _,
        device_read_bps: _,
        device_write_bps: _,
        device_read_iops: _,
        device_write_iops: _,
        devices: _,
        cdi_devices: _,
        device_cgroup_rules: _,
        gpus: _,
    } = resources;
}
