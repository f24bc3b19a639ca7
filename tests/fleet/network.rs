//! The network between box and broker: cut without a word, unplugged, and of the sixth version.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::link::make_certificates;
use super::support::broker::Broker;
use super::support::edge_box::{BoxPlan, binary};
use super::support::network::Cable;
use super::support::operator::Operator;
use super::support::scratch;
use super::support::wait::wait_until;
use super::{
    APPLIED_WITHIN, BACK_WITHIN, CLIENT, ONLINE, SOON, TO_ALL, decided, document, hear_applied,
};

/// A silent link is probed after 30 s and given up after 60; the machine may be busy.
const NOTICED_WITHIN: Duration = Duration::from_secs(90);

#[test]
fn a_link_that_falls_silent_is_noticed_and_made_anew_when_the_network_is_back() {
    let dir = scratch("network");
    let cable = Cable::new(dir.path());
    let broker = Broker::reached_at(cable.address());
    let mut operator = Operator::connect(broker.addr());
    operator.send(TO_ALL, document(10, "ten").to_string());
    let mqtt = format!(
        "url = \"mqtt://{}:{}\"\nfleet = \"venue\"\n",
        cable.address(),
        broker.addr().port()
    );
    let wrapped = cable.wrap(&binary(), dir.path());
    let edge = BoxPlan::default().binary(wrapped).mqtt(&mqtt).start();
    hear_applied(&operator, SOON, "fleet", 10);

    let began = Instant::now();
    cable.fall_silent();
    let lost = || edge.log().matches("the fleet's broker is not reached").count();
    wait_until(NOTICED_WITHIN, "the box notices that nobody answers", || lost() > 0);
    assert!(edge.cli(&["ls", "--json"]).status.success(), "the box works without a network");
    cable.unplug();
    operator.forget();
    cable.plug();
    cable.answer_again();
    let born = |said: &Value| said["online"] == true && said["connection"] == 2;
    operator.hear(BACK_WITHIN, ONLINE, "the box is back", born);
    let minutes = began.elapsed().as_secs() / 60 + 1;
    assert!(lost() as u64 <= 6 * minutes, "{} attempts in {minutes} minutes", lost());
    operator.send(TO_ALL, document(11, "eleven").to_string());
    hear_applied(&operator, APPLIED_WITHIN, "fleet", 11);
    assert_eq!(decided(&edge).0, "eleven");
    assert_eq!(broker.connections_of(CLIENT), 2);
}

#[test]
fn a_broker_is_reached_by_its_ipv6_address_with_and_without_tls() {
    let dir = scratch("broker");
    make_certificates(dir.path());
    let secure = Broker::in_dir_at(
        dir,
        "::1",
        "allow_anonymous true\ncafile {dir}/ca.pem\ncertfile {dir}/server.pem\n\
         keyfile {dir}/server.key\n",
    );
    let plain = Broker::in_dir_at(scratch("broker"), "::1", "allow_anonymous true\n");
    let ca = secure.dir().join("ca.pem");
    for (scheme, broker) in [("mqtts", &secure), ("mqtt", &plain)] {
        let port = broker.addr().port();
        let mqtt = format!(
            "url = \"{scheme}://[::1]:{port}\"\nfleet = \"venue\"\nca = \"{}\"\n",
            ca.display()
        );
        let edge = BoxPlan::default().mqtt(&mqtt).start();
        wait_until(SOON, "the broker has the box", || broker.connections_of(CLIENT) == 1);
        let said = "the fleet's broker is connected";
        wait_until(SOON, said, || edge.log().contains(said));
    }
}
