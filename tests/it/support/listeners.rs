//! The listeners of a broker, as properties.

/// One listener.
pub(super) struct Line<'a> {
    /// Capital letters.
    pub name: &'a str,
    /// Where the broker listens.
    pub address: String,
    /// What it tells clients to connect to; `None` for controllers, which aren't told of.
    pub advertised: Option<String>,
    /// `PLAINTEXT`, `SSL` or `SASL_SSL`.
    pub protocol: &'a str,
}

impl<'a> Line<'a> {
    /// One that clients find where it listens.
    pub(super) fn direct(name: &'a str, address: String, protocol: &'a str) -> Self {
        Self {
            name,
            advertised: Some(address.clone()),
            address,
            protocol,
        }
    }
}

/// The properties of all listeners; `inter_broker` names the one between brokers.
pub(super) fn properties(lines: &[Line<'_>], inter_broker: &str) -> String {
    let join = |show: &dyn Fn(&Line<'_>) -> Option<String>| {
        let shown: Vec<String> = lines.iter().filter_map(show).collect();
        shown.join(",")
    };
    let listeners = join(&|line| Some(format!("{}://{}", line.name, line.address)));
    let protocols = join(&|line| Some(format!("{}:{}", line.name, line.protocol)));
    let advertised = join(&|line| {
        let advertised = line.advertised.as_ref()?;
        Some(format!("{}://{advertised}", line.name))
    });
    format!(
        "listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name={inter_broker}
"
    )
}
