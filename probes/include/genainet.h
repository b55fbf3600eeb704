/* SPDX-License-Identifier: Apache-2.0
 *
 * What the probes share: views of kernel structs, the parsed packet, the filter, accounting of events.
 *
 * "views.h" is written by the agent from the node's own BTF (agent/bpf/headers.py): for every view a struct with the
 * fields at their true distances and OFFSETOF_<view>. Nothing here knows an offset, and no kernel header is needed.
 *
 * The agent puts this file in front of each probe instead of including it: BCC rewrites map operations in the main
 * file only.
 */
#define __always_inline inline __attribute__((always_inline))

/* Kernel memory is read by plain loads where the kernel offers bpf_rdonly_cast (Linux 6.2): TYPED gives an address the
 * BTF type that the verifier checks the loads against, and costs nothing when it runs. A load that faults gives 0. The
 * number is replaced by the kernel function's (agent/bpf/compiler.py). Else one helper call copies all fields of a view. */
#define TYPED(base, type) (((__u64 (*)(__u64, __u32))0x74797065)((base), (type)))
/* In assembler, as the compiler would join loads of neighbouring fields, which the verifier refuses. */
#define TYPED_LOAD(to, size, from, offset)                                                               \
	({                                                                                               \
		__u64 value;                                                                             \
		asm("%0 = *(u" #size " *)(%1 + %2)" : "=r"(value) : "r"(from), "i"(offset));              \
		(to) = value;                                                                            \
	})

#include "views.h"

#define READ_VIEW(dst, view, base) load_##view(&(dst), (__u64)(base))

/* Copies the first half of the 16 bytes at an address, and the other half. */
#define LOAD_8(to, from) TYPED_LOAD(*(__u64 *)(to), 64, TYPED(from, BTF_in6_addr), 0)
#define LOAD_16(to, from)                                         \
	({                                                        \
		__u64 part = TYPED(from, BTF_in6_addr);           \
		TYPED_LOAD(*(__u64 *)(to), 64, part, 0);          \
		TYPED_LOAD(*(__u64 *)((to) + 8), 64, part, 8);    \
	})

#define P_ICMP 1
#define P_TCP 6
#define P_UDP 17
#define P_IPIP 4
#define P_IPV6 41
#define P_ICMPV6 58
#define P_SCTP 132

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define SOCK_STREAM 1 /* include/linux/net.h */
#define TCP_SYN_SENT 2 /* include/net/tcp_states.h */

/* The first arguments of a kernel function where it begins: registers, as they lie in the machine's struct pt_regs
 * (arch/arm64, arch/x86: include/uapi/asm/ptrace.h). */
#ifdef __aarch64__
struct arguments { __u64 first, second; };
#else
struct arguments { __u64 others[13], second, first; };
#endif

#define STACK_DEPTH 20
#define REASONS 256

/* Where and why the kernel freed a packet. */
struct end {
	__u64 location;
	__u32 reason;
	__u16 depth; /* entries of stack that are valid */
	__u16 tracked; /* enum tracked */
	__u64 stack[STACK_DEPTH];
};

/* What connection tracking made of a packet. NONE: it has no entry, as before tracking; rules match it as INVALID. What follows
 * is enum ip_conntrack_info, counted from TRACKED_AS. */
enum tracked { TRACKED_UNKNOWN = 0, TRACKED_NONE = 1, TRACKED_AS = 2 };
#define CONNTRACK_INFO 7 /* the low bits of skb->_nfct (NFCT_INFOMASK); the rest is the entry's address */

static __always_inline __u16 tracked_as(__u64 skb)
{
#ifdef HAS_skb_conntrack
	struct skb_conntrack entry = {};

	READ_VIEW(entry, skb_conntrack, skb);
	return entry._nfct ? TRACKED_AS + (entry._nfct & CONNTRACK_INFO) : TRACKED_NONE;
#else
	return TRACKED_UNKNOWN;
#endif
}

/* Of skb:kfree_skb(skb, location, reason); 0 where the kernel gives none. */
static __always_inline __u32 reason_of(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef HAS_DROP_REASON
	return ctx->args[2];
#else
	return 0;
#endif
}

static __always_inline void fill_end(struct end *e, struct bpf_raw_tracepoint_args *ctx)
{
	e->location = ctx->args[1];
	e->reason = reason_of(ctx);
	e->tracked = tracked_as(ctx->args[0]);
	long size = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	e->depth = size > 0 ? (__u32)size / 8 : 0;
}

enum point { POINT_RX = 0, POINT_TX = 1, POINT_DROP = 2 };

/* Where a SYN went: it is named by what translation leaves alone (a masqueraded source port as far as the kernel can), and the
 * last destination that it was sent to is the backend. The packet probe notes, the connections probe asks: one map of both. */
struct way_key {
	__u32 seq;
	__u16 sport; /* host byte order */
	__u16 pad;
};

struct way {
	__u8 daddr[16];
	__u16 dport;
	__u16 pad[3];
};

#define WAYS 16384 /* each is asked for, and removed, when its handshake is over */

struct tuple {
	__u8 saddr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 daddr[16];
	__u16 sport; /* host byte order; 0 for ICMP */
	__u16 dport;
	__u8 proto;
	__u8 pad[3];
};

struct tunnel_device {
	__u32 netns;
	__u32 ifindex;
};

struct tunnel_end {
	__u8 addr[16];
};

struct filter_key {
	__u8 addr[16];
	__u16 port; /* host byte order; 0: any port */
	__u8 proto;
	__u8 pad;
};

#define ANY_TCP 2

struct config {
	__u32 any_port;	    /* some filter has port 0; ANY_TCP: one names all of TCP */
	__u32 own_netns;    /* only namespaces in `own` are this node's */
	__u32 budget;	    /* events a second and CPU */
	__u32 filtered;	    /* some filter is set; a probe may take none for "all" */
	__u32 live;	    /* 0: nothing matches yet, or no more; all programs begin and end at one moment */
	__u32 generation;   /* another one each time that filters or `own` may have changed; never 0 */
};

/* A parsed packet. */
struct packet {
	struct tuple t;
	__u64 l3;	/* address of the IP header */
	__u32 sig;	/* a hash of what NAT leaves alone: TCP seq, ack and IP id, or the first payload bytes */
	__u32 seq;
	__u32 ack;
	__u16 ip_id;
	__u16 l4_offset; /* of the transport header, from l3 */
	__u8 tcp_flags;
	__u8 tcp_doff;	/* bytes */
	__u8 icmp_type;
	__u8 icmp_code;
	__u32 icmp_rest; /* bytes 4 to 7 of the ICMP header, as on the wire */
	__u8 later;	 /* a later fragment: its ports are the first one's */
	__u8 ttl;	 /* or hop limit */
	__u8 closed;	 /* TCP: its sender takes no more data for now */
	__u8 pad;
};

/* What became of the events: one slot a cause. */
enum account { ACCOUNT_EMITTED = 0, ACCOUNT_RING_FULL = 1, ACCOUNT_BUDGET = 2, ACCOUNT_FLOWS_CREATED = 3,
	       ACCOUNT_FLOWS_FULL = 4, ACCOUNT_MAX = 5 };

struct budget {
	__u64 second;
	__u32 used;
	__u32 pad;
};

BPF_ARRAY(config, struct config, 1);
BPF_HASH(filter, struct filter_key, __u8, 65536);
BPF_HASH(tunnel_devices, struct tunnel_device, __u8, 4096); /* on which a tunnel is believed (agent/node/tunnels.py) */
BPF_HASH(tunnel_ends, struct tunnel_end, __u8, 4096);	    /* addresses of the node's, of which a tunnel has one */
BPF_ARRAY(port_bits, __u64, 1024); /* one bit a port that some filter names: most packets stop here */
BPF_HASH(own, __u32, __u8, 16384);
BPF_ARRAY(harmless, __u64, REASONS / 64); /* one bit a reason for which packets are freed in the normal course of things */
BPF_PERCPU_ARRAY(account, __u64, ACCOUNT_MAX);
BPF_PERCPU_ARRAY(budgets, struct budget, 1);

/* Atomic, as a softirq may come in between: what is emitted must be what is received and lost, to the last event. */
static __always_inline void count(int what)
{
	__u64 *slot = account.lookup(&what);
	if (slot)
		__sync_fetch_and_add(slot, 1);
}

/* Whether one more event may be emitted now; counts it either way. */
static __always_inline int may_emit(__u64 now)
{
	int zero = 0;
	struct config *cfg = config.lookup(&zero);
	struct budget *b = budgets.lookup(&zero);
	if (!cfg || !b)
		return 0;
	count(ACCOUNT_EMITTED);
	__u64 second = now >> 30; /* 1.07 s: a shift is cheaper than a division */
	if (b->second != second) {
		b->second = second;
		b->used = 0;
	}
	if (b->used >= cfg->budget) {
		count(ACCOUNT_BUDGET);
		return 0;
	}
	b->used++;
	return 1;
}

/* Whether nothing is lost by a packet that is freed for the reason. Each connection ends with one: it is told before the packet
 * is looked at, which has left the caches by then. */
static __always_inline int is_harmless(__u32 reason)
{
	__u32 word = reason >> 6;
	__u64 *bits = harmless.lookup((int *)&word);

	return bits && ((*bits >> (reason & 63)) & 1);
}

static __always_inline void map_ipv4(__u8 *to, const __u8 *from)
{
	*(__u64 *)to = 0;
	*(__u32 *)(to + 8) = 0xffff0000; /* bytes 00 00 ff ff, little endian; see headers.py for the check */
	*(__u32 *)(to + 12) = *(__u32 *)from;
}

static __always_inline int same_address(const __u8 *a, const __u8 *b)
{
	return *(__u64 *)a == *(__u64 *)b && *(__u64 *)(a + 8) == *(__u64 *)(b + 8);
}

static __always_inline __u16 be16(const __u8 *p)
{
	return ((__u16)p[0] << 8) | p[1];
}

static __always_inline __u32 be32(const __u8 *p)
{
	return ((__u32)p[0] << 24) | ((__u32)p[1] << 16) | ((__u32)p[2] << 8) | p[3];
}

static __always_inline __u32 mix(const __u8 *p)
{
	return *(__u32 *)p ^ (*(__u32 *)(p + 4) * 0x9e3779b1u);
}

/* The headers of an IP packet as read: the IP header and the first bytes of the transport header. */
struct headers {
	__u8 ip[40];
	__u8 l4[24];
	__u16 l4_offset; /* from the IP header */
	__u8 proto;
	__u8 version;
	__u8 later; /* a later fragment: of the transport header only the ports are known */
};

static __always_inline int read_ip(struct headers *h, __u64 from)
{
#ifdef TYPED_LOADS
	LOAD_16(h->ip, from);
	LOAD_16(h->ip + 16, from + 16);
	LOAD_8(h->ip + 32, from + 32);
	return 0;
#else
	return bpf_probe_read_kernel(h->ip, 40, (void *)from);
#endif
}

static __always_inline int read_l4(struct headers *h, __u64 from)
{
#ifdef TYPED_LOADS
	LOAD_16(h->l4, from);
	LOAD_8(h->l4 + 16, from + 16);
	return 0;
#else
	return bpf_probe_read_kernel(h->l4, 24, (void *)from);
#endif
}

/* Fragments of one packet: later ones have no ports, and are known by the first one's. */
struct fragment_key {
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 id;
	__u32 proto;
};
struct fragment_ports {
	__u8 ports[4]; /* as on the wire */
};
BPF_TABLE("lru_hash", struct fragment_key, struct fragment_ports, fragments, 4096);
/* Too large for the stack. A program that interrupts another here may cost it one fragment, no more. */
BPF_PERCPU_ARRAY(fragment_scratch, struct fragment_key, 1);

/* Notes the ports of a first fragment, or gives a later one those of its first. Returns 0 for a later one whose first was
 * not seen. What stands behind the ports is not the transport header in a later one: it is zeroed. */
static __always_inline int defragment(struct headers *h, __u32 id, int first)
{
	int slot = 0;
	struct fragment_key *key = fragment_scratch.lookup(&slot);

	if (!key)
		return first;
	key->id = id;
	key->proto = h->proto;
	if (h->version == 4) {
		map_ipv4(key->saddr, h->ip + 12);
		map_ipv4(key->daddr, h->ip + 16);
	} else {
		__builtin_memcpy(key->saddr, h->ip + 8, 16);
		__builtin_memcpy(key->daddr, h->ip + 24, 16);
	}
	if (first) {
		struct fragment_ports ports;
		__builtin_memcpy(ports.ports, h->l4, 4);
		fragments.update(key, &ports);
		return 1;
	}
	struct fragment_ports *known = fragments.lookup(key);
	if (!known)
		return 0;
	__builtin_memset(h->l4, 0, 24);
	__builtin_memcpy(h->l4, known->ports, 4);
	h->later = 1;
	return 1;
}

/* Reads the headers at `l3`. Returns 0 for what is no IP packet, and for a later fragment whose first was not seen. */
static __always_inline int read_headers(struct headers *h, __u64 l3)
{
	if (read_ip(h, l3))
		return 0;
	h->later = 0;
	h->version = h->ip[0] >> 4;
	if (h->version == 4) {
		__u16 fragment = be16(h->ip + 6) & 0x3fff; /* more fragments, and the offset */
		h->proto = h->ip[9];
		h->l4_offset = (h->ip[0] & 15) * 4;
		if (h->l4_offset == 20) {
			__builtin_memcpy(h->l4, h->ip + 20, 20);
			*(__u32 *)(h->l4 + 20) = 0;
		} else if (read_l4(h, l3 + h->l4_offset)) {
			return 0;
		}
		return !fragment || defragment(h, be16(h->ip + 4), !(fragment & 0x1fff));
	}
	if (h->version != 6)
		return 0;
	h->proto = h->ip[6];
	h->l4_offset = 40;
	if (read_l4(h, l3 + 40))
		return 0;
	if (h->proto == 0 || h->proto == 60 || h->proto == 43 || h->proto == 44) { /* one extension header */
		int is_fragment = h->proto == 44;
		__u16 offset = be16(h->l4 + 2) & 0xfff8;
		__u32 id = be32(h->l4 + 4);
		h->l4_offset += is_fragment ? 8 : (h->l4[1] + 1) * 8;
		h->proto = h->l4[0];
		if (read_l4(h, l3 + h->l4_offset))
			return 0;
		return !is_fragment || defragment(h, id, !offset);
	}
	return 1;
}

/* Where the IP header of an skb is; 0 where it has none, or not in its linear part. `sh` is read on the way. */
static __always_inline __u64 ip_header(struct skb_head *sh, __u64 skb, int received)
{
	READ_VIEW(*sh, skb_head, skb);
	if (sh->protocol != 0x0008 && sh->protocol != 0xdd86) /* ETH_P_IP, ETH_P_IPV6, as on the wire */
		return 0;
	__u64 l3 = received ? sh->data : sh->head + sh->network_header;
	return l3 >= sh->head && l3 + 28 <= sh->head + sh->tail ? l3 : 0;
}

static __always_inline int has_ports(__u8 proto)
{
	return proto == P_TCP || proto == P_UDP || proto == P_SCTP;
}

/* What NAT leaves alone in a packet, hashed: TCP seq, ack and IP id, or the first payload bytes. */
static __always_inline __u32 signature(struct headers *h)
{
	if (h->later)
		return 0;
	if (h->proto == P_TCP)
		return *(__u32 *)(h->l4 + 4) ^ (*(__u32 *)(h->l4 + 8) * 0x9e3779b1u) ^
		       (h->version == 4 ? be16(h->ip + 4) : 0);
	if (h->proto == P_UDP)
		return mix(h->l4 + 8) ^ be16(h->l4 + 4);
	if (h->proto == P_SCTP)
		return mix(h->l4 + 12);
	return *(__u32 *)(h->l4 + 4);
}

/* Fills in the packet from its headers. */
static __always_inline void parse(struct packet *p, struct headers *h, __u64 l3)
{
	p->l3 = l3;
	p->l4_offset = h->l4_offset;
	p->t.proto = h->proto;
	p->t.pad[0] = p->t.pad[1] = p->t.pad[2] = 0;
	p->t.sport = p->t.dport = 0;
	p->sig = signature(h);
	p->later = h->later;
	p->seq = p->ack = p->icmp_rest = 0;
	p->tcp_flags = p->tcp_doff = p->icmp_type = p->icmp_code = p->closed = 0;
	if (h->version == 4) {
		p->ip_id = be16(h->ip + 4);
		p->ttl = h->ip[8];
		map_ipv4(p->t.saddr, h->ip + 12);
		map_ipv4(p->t.daddr, h->ip + 16);
	} else {
		p->ip_id = 0;
		p->ttl = h->ip[7];
		__builtin_memcpy(p->t.saddr, h->ip + 8, 16);
		__builtin_memcpy(p->t.daddr, h->ip + 24, 16);
	}
	if (has_ports(h->proto)) {
		p->t.sport = be16(h->l4);
		p->t.dport = be16(h->l4 + 2);
	}
	if (h->proto == P_TCP) {
		p->seq = be32(h->l4 + 4);
		p->ack = be32(h->l4 + 8);
		p->tcp_doff = (h->l4[12] >> 4) * 4;
		p->tcp_flags = h->l4[13];
		p->closed = !h->l4[14] && !h->l4[15] && !(p->tcp_flags & TCP_RST);
	} else if (h->proto == P_ICMP || h->proto == P_ICMPV6) {
		p->icmp_type = h->l4[0];
		p->icmp_code = h->l4[1];
		p->icmp_rest = *(__u32 *)(h->l4 + 4);
	}
}

static __always_inline int port_wanted(__u16 port)
{
	__u32 word = port >> 6;
	__u64 *bits = port_bits.lookup(&word);
	return bits && ((*bits >> (port & 63)) & 1);
}

/* Of a plain TCP segment, where they could be read cheaply. */
struct ports {
	__u16 sport;
	__u16 dport;
	__u8 known;
	__u8 from_server; /* a filter names the source port */
	__u8 to_server;
	__u8 version;
	__u64 l4; /* address of the TCP header */
};

#ifdef TYPED_LOADS
/* What a few loads, as wide as they may be, tell of an IP packet without options or extension headers. */
struct glance {
	__u64 l4; /* address of the transport header */
	__u16 fragment; /* flags and offset of IPv4, as on the wire, the first byte lowest */
	__u8 proto;	/* of IPv6 the first header behind the fixed one */
	__u8 version;
};

/* Returns 0 for what is no such packet. `sh` is read on the way: only what is used is loaded. */
static __always_inline int glance_at(struct glance *g, struct skb_head *sh, __u64 skb, int received)
{
	__u64 l3, ip, start, rest;

	READ_VIEW(*sh, skb_head, skb);
	l3 = received ? sh->data : sh->head + sh->network_header;
	ip = TYPED(l3, BTF_in6_addr);
	TYPED_LOAD(start, 64, ip, 0); /* bytes 0 to 7, the first one lowest */
	if ((start & 0xff) == 0x45) {
		TYPED_LOAD(rest, 64, ip, 8);
		g->version = 4;
		g->proto = rest >> 8;
		g->fragment = start >> 48;
		g->l4 = l3 + 20;
		return 1;
	}
	g->version = 6;
	g->proto = start >> 48;
	g->fragment = 0;
	g->l4 = l3 + 40;
	return (start >> 4 & 15) == 6;
}
#endif

/* Whether an skb is a plain TCP segment none of whose ports a filter names, as most packets of a node are. Told by a few
 * loads, where loads are cheap; 0 where it is not known, as for what is not in the linear part. */
static __always_inline int is_other_tcp(__u64 skb, int received, struct ports *ports)
{
#ifdef TYPED_LOADS
	struct skb_head sh;
	struct glance g;
	__u32 both;

	if (!glance_at(&g, &sh, skb, received) || g.proto != P_TCP || g.fragment & 0xff1f) /* 0x1fff, as on the wire */
		return 0;
	TYPED_LOAD(both, 32, TYPED(g.l4, BTF_in6_addr), 0);
	ports->version = g.version;
	ports->l4 = g.l4;
	ports->sport = __builtin_bswap16(both);
	ports->dport = __builtin_bswap16(both >> 16);
	ports->known = 1;
	ports->to_server = port_wanted(ports->dport);
	ports->from_server = port_wanted(ports->sport);
	return !ports->to_server && !ports->from_server;
#else
	return 0;
#endif
}

/* Whether such a segment is a SYN, and no answer to one. */
static __always_inline int opens(struct ports *ports)
{
	__u8 flags = 0;

#ifdef TYPED_LOADS
	TYPED_LOAD(flags, 8, TYPED(ports->l4, BTF_in6_addr), 13);
#endif
	return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* The addresses of such a segment. */
static __always_inline void read_addresses(struct tuple *t, struct ports *ports)
{
	__u32 both[2];

	if (ports->version == 6) {
		LOAD_16(t->saddr, ports->l4 - 32);
		LOAD_16(t->daddr, ports->l4 - 16);
		return;
	}
	LOAD_8(both, ports->l4 - 8);
	map_ipv4(t->saddr, (__u8 *)&both[0]);
	map_ipv4(t->daddr, (__u8 *)&both[1]);
}

/* Whether a filter may name one of the packet's ports: the cheap test that most packets fail. */
static __always_inline int may_match(struct headers *h)
{
	if (!has_ports(h->proto))
		return port_wanted(0);
	return port_wanted(be16(h->l4 + 2)) || port_wanted(be16(h->l4));
}

static __always_inline int in_filter(const __u8 *addr, __u16 port, __u8 proto, int any_port)
{
	if (!port_wanted(port))
		return 0;
	struct filter_key key = {.port = port, .proto = proto};
	__builtin_memcpy(key.addr, addr, 16);
	if (filter.lookup(&key))
		return 1;
	if (!any_port)
		return 0;
	key.port = 0;
	return filter.lookup(&key) != 0;
}

/* Whether a filter names one of the tuple's ends. */
static __always_inline int matches(struct tuple *t)
{
	int zero = 0;
	struct config *cfg = config.lookup(&zero);
	if (!cfg || !cfg->live)
		return 0;
	if (cfg->any_port == ANY_TCP && t->proto == P_TCP)
		return 1;
	return in_filter(t->daddr, t->dport, t->proto, cfg->any_port) ||
	       in_filter(t->saddr, t->sport, t->proto, cfg->any_port);
}

/* Whether the namespace is this node's (several nodes may share one kernel). */
static __always_inline int is_own(__u32 netns)
{
	int zero = 0;
	struct config *cfg = config.lookup(&zero);
	return cfg && (!cfg->own_netns || own.lookup(&netns));
}

/* Where an inner packet begins: what a tunnel carries, or what an ICMP error quotes; 0 where there is none. */
static __always_inline __u64 inner_of(struct headers *h, __u64 l3, int *icmp_error)
{
	__u64 inner = l3 + h->l4_offset;
	__u8 type = h->l4[0], first = 0;

	if (h->proto == P_TCP)
		return 0;
	if (h->proto == P_UDP) {
		__u16 dport = be16(h->l4 + 2);
		if (dport != 8472 && dport != 4789 && dport != 6081)
			return 0;
		if (dport == 6081)
			first = h->l4[8];
		return inner + 8 + 8 + (first & 63) * 4 + 14; /* UDP, VXLAN or Geneve with its options, Ethernet */
	}
	if (h->proto == P_IPIP || h->proto == P_IPV6)
		return inner;
	if (h->proto == P_ICMP ? (type == 3 || type == 11 || type == 12) : (h->proto == P_ICMPV6 && type >= 1 && type <= 4)) {
		*icmp_error = 1;
		return inner + 8;
	}
	return 0;
}

/* Zeroes what of a transport header stands behind the linear part's end: it is some other packet's. Returns 0 where not even
 * the ports are there. */
static __always_inline int clip(struct headers *h, __u64 l3, __u64 end)
{
	__u64 l4 = l3 + h->l4_offset;

	if (l4 + (h->proto == P_TCP ? 20 : 16) > end) {
		*(__u64 *)(h->l4 + 8) = 0;
		*(__u64 *)(h->l4 + 16) = 0;
	}
	return l4 + 8 <= end;
}

/* The namespace and index of the device that an skb is on; 0 where it is on none. */
static __always_inline int device_of(__u64 skb, __u32 *netns, __u32 *ifindex)
{
	struct skb_place at;
	struct dev_place place = {};
	struct net_ino ino = {};

	READ_VIEW(at, skb_place, skb);
	if (!at.dev)
		return 0;
	READ_VIEW(place, dev_place, at.dev);
	READ_VIEW(ino, net_ino, place.nd_net_net);
	*netns = ino.ns_inum;
	*ifindex = place.ifindex;
	return 1;
}

/* Whether the packet of an skb is a tunnel of the node's own: on a device between nodes, with an address of the node's. */
static __always_inline int is_tunnel(__u64 skb, struct tuple *outer)
{
	struct tunnel_device key = {};

	if (!device_of(skb, &key.netns, &key.ifindex) || !tunnel_devices.lookup(&key))
		return 0;
	return tunnel_ends.lookup((struct tunnel_end *)outer->saddr) || tunnel_ends.lookup((struct tunnel_end *)outer->daddr);
}

#define FIRST_INODE 0xefffff00u /* inode numbers of namespaces start here (PROC_DYNAMIC_FIRST and the fixed ones below) */

/* Where a packet is. All zero but `netns` where it is on no device. */
struct place {
	__u32 netns;
	__u32 ifindex;
	char device[16];
};

/* The namespace of a socket, as its inode number; 0 if it has none. */
static __always_inline __u32 socket_netns(__u64 sk)
{
	struct sock_net net = {};
	struct net_ino ino = {};

	READ_VIEW(net, sock_net, sk);
	READ_VIEW(ino, net_ino, net.__sk_common_skc_net_net);
	return ino.ns_inum >= FIRST_INODE ? ino.ns_inum : 0;
}

/* The receiving socket of a dropped skb, where the tracepoint names it (Linux 6.11, ba8de796baf4): inside TCP an skb has
 * no device any more, and no socket yet. */
static __always_inline __u64 receiving_socket(struct bpf_raw_tracepoint_args *ctx)
{
#if ARGS_kfree_skb >= 4
	return ctx->args[3];
#else
	return 0;
#endif
}

/* The place of an skb by its device, else its namespace by its socket: its own or, of a drop, the receiving one. */
static __always_inline void find_place(struct place *p, __u64 skb, __u64 dev, __u64 receiver)
{
	struct dev_place place = {};
	struct net_ino ino = {};
	struct skb_sk sk = {};

	__builtin_memset(p, 0, sizeof(*p));
	if (dev) {
		READ_VIEW(place, dev_place, dev);
		READ_VIEW(ino, net_ino, place.nd_net_net);
		if (ino.ns_inum >= FIRST_INODE) { /* else: a socket queue keeps other things in skb->dev */
			p->ifindex = place.ifindex;
			p->netns = ino.ns_inum;
			__builtin_memcpy(p->device, place.name, 16);
			return;
		}
	}
	READ_VIEW(sk, skb_sk, skb);
	if (sk.sk)
		p->netns = socket_netns(sk.sk);
	if (!p->netns && receiver)
		p->netns = socket_netns(receiver);
}

/* How many segments an skb of TCP's send queue holds: tcp_skb_cb.tcp_gso_segs stands behind seq and end_seq in skb->cb. */
static __always_inline __u32 segments_of(__u64 skb)
{
	struct skb_cb cb = {};

	if (!skb)
		return 1;
	READ_VIEW(cb, skb_cb, skb);
	__u16 segments = *(__u16 *)(cb.cb + 8);
	return segments ? segments : 1;
}

/* The tuple of a TCP socket, its own end as the source. Returns the socket's state. */
static __always_inline __u8 socket_tuple(struct tuple *t, __u64 sk)
{
	struct sock_tuple k = {};

	__builtin_memset(t, 0, sizeof(*t));
	READ_VIEW(k, sock_tuple, sk);
	t->proto = P_TCP;
	t->sport = k.__sk_common_skc_num;
	t->dport = be16((__u8 *)&k.__sk_common_skc_dport);
	if (k.__sk_common_skc_family == 2) { /* AF_INET */
		map_ipv4(t->saddr, (__u8 *)&k.__sk_common_skc_rcv_saddr);
		map_ipv4(t->daddr, (__u8 *)&k.__sk_common_skc_daddr);
	} else {
		struct sock_tuple6 k6 = {};
		READ_VIEW(k6, sock_tuple6, sk);
		__builtin_memcpy(t->saddr, k6.__sk_common_skc_v6_rcv_saddr, 16);
		__builtin_memcpy(t->daddr, k6.__sk_common_skc_v6_daddr, 16);
	}
	return k.__sk_common_skc_state;
}
