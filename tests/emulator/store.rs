//! What Envoy keeps for the guest: properties, metrics, shared data, foreign functions.

use super::host::{Answer, Host};
use proxy_wasm::types::{MetricType, Status};

impl Host {
    pub fn property(&mut self, path: &[u8]) -> Answer<Vec<u8>> {
        match path {
            b"plugin_root_id" => return Ok(self.root()?.root_id.clone().into()),
            b"plugin_name" => return Ok(self.root()?.name.clone().into()),
            _ => {}
        }
        let stream = self.stream().ok_or(Status::NotFound)?;
        if let Some(value) = stream.properties.get(path) {
            return Ok(value.clone());
        }
        let request = stream.request_id;
        let key = match path.strip_prefix(b"filter_state\0") {
            Some(key) => key.to_vec(),
            None => [b"wasm.", path].concat(),
        };
        let state = self
            .requests
            .get(&request)
            .map(|shared| &shared.filter_state);
        let value = state.and_then(|state| state.get(&key));
        value.cloned().ok_or(Status::NotFound)
    }

    pub fn set_property(&mut self, path: &[u8], value: &[u8]) -> Answer {
        let Some(request) = self.stream().map(|stream| stream.request_id) else {
            self.violate("a property was set outside of a stream");
            return Err(Status::NotFound);
        };
        let shared = self.requests.entry(request).or_default();
        shared
            .filter_state
            .insert([b"wasm.", path].concat(), value.to_vec());
        Ok(())
    }

    pub fn define_metric(&mut self, kind: MetricType, name: String) -> u32 {
        self.values
            .entry(name.clone())
            .or_insert_with(|| match kind {
                MetricType::Histogram => Vec::new(),
                _ => vec![0],
            });
        self.metrics.push((kind, name));
        self.metrics.len() as u32
    }

    fn metric(&mut self, id: u32) -> Answer<(MetricType, &mut Vec<u64>)> {
        let metric = self.metrics.get((id as usize).wrapping_sub(1));
        let (kind, name) = metric.ok_or(Status::NotFound)?;
        let values = self.values.get_mut(name).ok_or(Status::NotFound)?;
        Ok((*kind, values))
    }

    pub fn metric_value(&mut self, id: u32) -> Answer<u64> {
        match self.metric(id)? {
            (MetricType::Histogram, _) => Err(Status::BadArgument),
            (_, values) => Ok(values[0]),
        }
    }

    pub fn increment_metric(&mut self, id: u32, by: i64) -> Answer {
        match self.metric(id)? {
            (MetricType::Counter, values) if by > 0 => values[0] += by as u64,
            (MetricType::Gauge, values) => values[0] = values[0].wrapping_add_signed(by),
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    pub fn record_metric(&mut self, id: u32, value: u64) -> Answer {
        match self.metric(id)? {
            (MetricType::Counter, values) => values[0] += value,
            (MetricType::Gauge, values) => values[0] = value,
            (_, values) => values.push(value),
        }
        Ok(())
    }

    pub fn shared_data(&mut self, key: &[u8]) -> Answer<(Vec<u8>, u32)> {
        let key = (self.root()?.vm_id.clone(), key.to_vec());
        self.shared_data.get(&key).cloned().ok_or(Status::NotFound)
    }

    pub fn set_shared_data(&mut self, key: &[u8], value: &[u8], cas: u32) -> Answer {
        let key = (self.root()?.vm_id.clone(), key.to_vec());
        if let Some(faster) = self.faster_writes.pop_front() {
            self.write_shared_data(key.clone(), faster, 0)?;
        }
        self.write_shared_data(key, value.to_vec(), cas)
    }

    /// As Envoy's `SharedData::set`: 0 is any number, data that is not there has any number, and one
    /// count of writes is for all data.
    pub fn write_shared_data(
        &mut self,
        key: (String, Vec<u8>),
        value: Vec<u8>,
        cas: u32,
    ) -> Answer {
        let old = self.shared_data.get(&key);
        if cas != 0 && old.is_some_and(|(_, number)| *number != cas) {
            return Err(Status::CasMismatch);
        }
        self.shared_writes += 1;
        self.shared_data.insert(key, (value, self.shared_writes));
        Ok(())
    }

    pub fn call_foreign_function(&mut self, name: &str) -> Answer {
        *self.foreign_calls.entry(name.to_owned()).or_default() += 1;
        match name {
            "clear_route_cache" => Ok(()),
            _ => Err(Status::NotFound),
        }
    }
}
