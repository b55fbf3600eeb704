"""Which test shows that a fault is judged, for every one that people report."""

from __future__ import annotations

import importlib

_ENDS = "connections.test_faults_of_ends"
ROWS = {
    "a SYN or SYN-ACK lost once, all answered": "connections.test_faults.test_a_syn_ack_that_is_lost_once_decides_nothing",
    "INVALID packets and bad checksums": "connections.test_faults.test_a_bad_checksum_is_invalid_and_a_rule_drops_what_is",
    "a reply that was not translated back": "connections.test_faults.test_a_reply_that_is_not_translated_back_is_no_closed_port",
    "SNAT ports used up": "connections.test_faults.test_source_ports_that_are_used_up_are_no_race",
    "a rule drops the SYN-ACK": "connections.test_faults.test_a_rule_on_the_way_back_is_named",
    "replies die on another device": "connections.test_trace_incidents.test_incident_is_diagnosed",
    "SYN queue full": "connections.test_faults.test_a_full_syn_queue_is_unanswered_and_counted",
    "path MTU black hole on the wire": "connections.test_faults.test_a_wire_that_takes_no_large_packets_fails_the_connection",
    "idle flow cut": "connections.test_faults.test_a_connection_that_is_cut_while_idle_is_unanswered",
    "stream cut midway": "connections.test_faults.test_a_rule_that_comes_in_the_middle_is_named",
    "stream reset midway": "connections.test_stream_incidents.test_reset_stream_is_told_with_what_it_had_carried",
    "sidecar redirect without a listener": "connections.test_faults.test_a_pods_own_redirect_is_told_from_the_backends_port",
    "a rule in the pod's own namespace": "connections.test_faults.test_a_rule_of_the_pod_itself_is_named",
    "the next hop is gone": "connections.test_drops_places.test_gateway_that_is_gone_is_named_and_not_what_lies_behind_it",
    "TTL ran out in a loop": "connections.test_faults.test_a_loop_is_no_malformed_header",
    "stale connection table entries": "connections.test_faults.test_an_entry_of_datagrams_for_a_pod_that_is_gone_is_named",
    "an entry from before the rules": "connections.test_faults.test_an_entry_from_before_the_rules_is_named",
    "a node's own client": "connections.test_faults.test_a_nodes_own_client_has_service_and_backend",
    "UDP, IPv6, overlays, equal payloads": "connections.test_truth.test_every_connection_is_told_as_it_was_or_as_unknown",
    "UDP to a closed port, a rule that prohibits": "connections.test_faults.test_an_icmp_error_to_a_pod_refuses_what_it_is_about",
    "PAWS": "connections.test_faults.test_segments_that_are_too_old_are_counted_as_drops_inside_tcp",
    "round idle times": "connections.test_faults.test_a_connection_that_was_forgotten_while_idle_names_who_forgets_after_so_long",
    "keep-alive race": "connections.test_faults.test_a_request_on_a_connection_that_the_server_had_closed_is_a_finding",
    "a port used again": "connections.test_faults.test_a_port_that_is_used_again_has_the_bytes_of_its_own_connection",
    "recovered drops": "connections.test_faults.test_drops_of_a_queue_that_were_made_good_fail_nothing",
    "later fragments dropped by a rule": "connections.test_faults.test_later_fragments_that_a_rule_takes_are_seen",
    "a limit, a rule that is gone": "connections.test_faults.test_a_rule_with_a_limit_is_named_and_no_other_blamed",
    "a sidecar that is down": "connections.test_faults.test_a_proxy_that_is_down_is_named_by_the_rule_that_sends_to_it",
    "a sidecar in between": "connections.test_faults.test_a_connection_through_its_own_proxy_is_one",
    "forwarding switched off": "connections.test_faults.test_a_node_that_does_not_forward_is_no_martian",
    "hairpin without masquerade": "connections.test_faults.test_a_pod_that_called_itself_is_told_that_nothing_masquerades",
    "a queue that is slow": "connections.test_faults.test_a_handshake_that_waits_in_a_queue_is_slow_at_that_device",
    "IPsec": "connections.test_faults.test_an_ipsec_policy_that_blocks_is_named",
    "TCP signatures": "connections.test_faults.test_a_socket_that_wants_signed_segments_is_told",
    "some datagrams lost": "connections.test_faults.test_datagrams_that_are_lost_between_answers_are_a_finding",
    "a stale link address": "connections.test_faults.test_a_stale_link_address_is_a_failure",
    "no endpoints": "connections.test_trace_incidents.test_incident_is_diagnosed",
    "errors that the kernel's limit held back": "connections.test_faults.test_errors_over_the_kernels_limit_reach_nobody",
    "bridge-nf-call-iptables": "connections.test_faults.test_answers_that_a_bridge_passes_by_the_rules_are_not_translated_back",
    "a proxy's own port": "connections.test_faults.test_a_packet_for_the_proxys_own_port_was_not_redirected_there",
    "first data that dies on the way back": "connections.test_faults.test_first_data_that_dies_on_its_way_back_is_seen_to",
    "reply packets of other flows": "connections.test_trace_of_pods.test_what_a_traced_pod_is_answered_is_no_connection_to_it",
    "a server that pauses": f"{_ENDS}.test_a_server_that_pauses_is_waited_for",
    "a client that reads nothing": f"{_ENDS}.test_a_client_that_reads_nothing_is_waited_for",
    "a queue on the reply's way": f"{_ENDS}.test_a_queue_that_holds_what_was_sent_is_not_the_servers_silence",
    "SO_LINGER 0": f"{_ENDS}.test_a_client_that_lingers_not_has_reset_the_connection",
    "simultaneous close": f"{_ENDS}.test_ends_that_close_at_once_have_lost_nothing",
    "TCP Fast Open": f"{_ENDS}.test_a_request_that_comes_with_the_syn_is_counted",
    "MPTCP": f"{_ENDS}.test_a_multipath_connection_is_one",
    "keepalives unanswered": f"{_ENDS}.test_a_client_whose_keepalives_stay_unanswered_resets_after_a_silence",
    "UDP behind a Service, no listener": f"{_ENDS}.test_a_datagram_to_a_closed_port_behind_a_service_is_refused_there",
    "a forged reset": f"{_ENDS}.test_a_reset_that_was_made_on_the_way_is_neither_ends",
    "the observer's own traffic": "connections.test_drops_incidents.test_healthy_lab_has_nothing_to_say",
}


def test_every_fault_that_is_reported_has_its_test() -> None:
    for place in ROWS.values():
        module, _, name = place.rpartition(".")
        assert callable(getattr(importlib.import_module(f"tests.lab.{module}"), name)), place
