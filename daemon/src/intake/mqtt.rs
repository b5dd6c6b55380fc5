//! An MQTT broker's topics.
//!
//! Comes in: `[[intake]] kind = "mqtt"`. Goes out: batches of one message: what it reports, and that it arrived here. With
//! QoS 1 and a session that the broker keeps: a message is acknowledged when it was taken, so what comes while the daemon
//! is away comes later; one that was taken in the very moment of its end may come twice.
#![forbid(unsafe_code)]

use super::report::Around;
use super::{AGAIN, Door, LONGEST, LOOK, Word, tls};
use crate::config::intake::Mqtt;
use crossbeam::channel::{RecvTimeoutError, bounded};
use rumqttc::{
    Client, Event, MqttOptions, Packet, Publish, QoS, RecvTimeoutError as Timeout, SubscribeFilter,
    TlsConfiguration, Transport,
};
use std::sync::Arc;
use std::time::Duration;

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Requests of ours that may wait.
const REQUESTS: usize = 64;

pub(super) fn run(mqtt: &Mqtt, mut door: Door) {
    while !door.is_over() {
        let why = match options(mqtt, &door) {
            Ok(options) => {
                let why = serve(mqtt, options, &mut door);
                door.hand(vec![Word::Stands(false)], None, None);
                why
            }
            Err(why) => why,
        };
        if door.is_over() {
            return;
        }
        door.lost(&format!("{}:{}: {why}", mqtt.host, mqtt.port));
        door.sleep(AGAIN);
    }
}

fn options(mqtt: &Mqtt, door: &Door) -> Result<MqttOptions, String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let id = mqtt.client_id.clone().unwrap_or_else(|| format!("counterfoil-{host}-{}", door.from));
    let mut options = MqttOptions::new(id, &mqtt.host, mqtt.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(false).set_manual_acks(true);
    options.set_max_packet_size(4 * LONGEST, LONGEST).set_inflight(32);
    if let Some(user) = &mqtt.user {
        options.set_credentials(user, tls::password(&mqtt.access)?.unwrap_or_default());
    }
    if mqtt.tls {
        let client = Arc::new(tls::client(&mqtt.access)?);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(client)));
    }
    Ok(options)
}

/// Until the connection breaks; then why.
fn serve(mqtt: &Mqtt, options: MqttOptions, door: &mut Door) -> String {
    let (client, mut connection) = Client::new(options, REQUESTS);
    loop {
        let event = match connection.recv_timeout(LOOK) {
            Ok(event) => event,
            Err(Timeout::Timeout) if !door.is_over() => continue,
            Err(Timeout::Timeout) => {
                // The broker is told that we go, and keeps what comes for us.
                let _ = client.try_disconnect();
                let _ = connection.recv_timeout(LOOK);
                return "it is over".into();
            }
            Err(Timeout::Disconnected) => return "the connection ended".into(),
        };
        match event {
            Err(e) => return e.to_string(),
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let filters = mqtt.topics.iter().map(|t| SubscribeFilter::new(t.clone(), QoS::AtLeastOnce));
                if client.try_subscribe_many(filters).is_err() {
                    return "it takes no subscriptions".into();
                }
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let refused = |code: &rumqttc::SubscribeReasonCode| {
                    matches!(code, rumqttc::SubscribeReasonCode::Failure)
                };
                if answer.return_codes.iter().any(refused) {
                    return "it refuses a subscription".into();
                }
                door.well();
                door.hand(vec![Word::Stands(true)], None, None);
            }
            Ok(Event::Incoming(Packet::Publish(message))) => {
                if !take(&message, door) {
                    return "it is over".into();
                }
                if message.qos != QoS::AtMostOnce && client.try_ack(&message).is_err() {
                    return "it takes no acknowledgement".into();
                }
            }
            Ok(_) => {}
        }
    }
}

/// Hands a message on and waits until it was taken. False: it is over.
fn take(message: &Publish, door: &mut Door) -> bool {
    if message.payload.len() > LONGEST {
        door.refuse("it is longer than 64 KiB");
        return true;
    }
    let around = Around { topic: Some(&message.topic) };
    let mut words = vec![Word::Arrived {
        topic: message.topic.clone(),
        payload: message.payload.to_vec(),
        retained: message.retain,
    }];
    words.extend(door.parse(&message.payload, around));
    let (taken, answer) = bounded(1);
    if !door.hand(words, None, Some(taken)) {
        return false;
    }
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(()) => return true,
            Err(RecvTimeoutError::Timeout) if !door.is_over() => {}
            Err(_) => return false,
        }
    }
}
