/* SPDX-License-Identifier: Apache-2.0
 *
 * DNS over UDP: the places where a query and its response were seen on this node, joined in the kernel.
 *
 * A query stays in `pending` with every device that it passes. When the response comes back to the device where the
 * query was seen first, the two leave together as one record: one record for an exchange, not one for each of its eight
 * or more sightings, which is what makes many queries a second affordable. Queries without an answer are taken out by
 * the agent. What joins is what NAT leaves alone: the client's port, the transaction id and the question's first bytes.
 *
 * An exchange takes its part of the budget when its query is first seen. One that finds none is counted there and then, and
 * noted in `refused`: at every other place its messages cost little.
 */
#define PENDING 16384	   /* exchanges that may be open at a time; 1.4 kB each */
#define QUERY_BYTES 288	   /* header, the longest name and its type, an OPT record with a cookie */
#define RESPONSE_BYTES 512
#define FLOWS 4		   /* tuples that one exchange may have on a node: as sent, after DNAT, after SNAT */
#define PLACES 8
#define HEADER 12	   /* of a DNS message, RFC 1035 4.1.1 */
#define QR 0x80
#define REFUSED_SETS 4096
#define REFUSED_WAYS 4
#define REFUSED_TICKS (1000000000 / TICK_NS) /* the same skb within this time is the query that was refused, at its next device */
#define EXPIRES_TICKS (5000000000 / TICK_NS) /* a response within this time of a refused query is that query's; EXPIRES_NS of probes/dns.py */
#define SECOND_NS (1ull << 30) /* of a budget, as in may_emit() */
#define CLIENTS 64 /* whose queries a CPU turns away at a glance */
#define SAME_PACKET_NS 1000000	/* the same skb at its first device again within this time is not a repetition */

enum record_kind { RECORD_ANSWERED = 1, RECORD_REPEATED = 2, RECORD_LONE = 3, RECORD_DROP = 4 };
enum side { SIDE_ANY = 0, SIDE_CLIENT = 1 };

struct sighted {
	__u64 t_ns;
	__u32 netns;
	__u32 ifindex;
	__u8 point;
	__u8 flow; /* index into the record's flows */
	__u8 pad[6];
};

struct dns_key {
	__u16 client_port; /* host byte order */
	__u16 id;
	__u32 question; /* its first four bytes, as on the wire */
};

/* Whose exchange it is, for shares: the device where its query was seen first. A pod's own is where it sends (tx), whatever
 * source address it forges. What comes from elsewhere (rx), or died on its way, comes by one device: there the address counts
 * too. */
struct client {
	__u32 netns;
	__u32 ifindex;
	__u8 addr[16];
};

/* Queries of which nothing is kept, as many as find room by their hash; the oldest makes room. A table that the kernel keeps in
 * order of use costs many times as much, and these come when there is no time. */
struct refused {
	__u32 tag[REFUSED_WAYS];
	__u32 skb[REFUSED_WAYS]; /* of its address */
	__u32 tick[REFUSED_WAYS]; /* 0: none */
};

/* What was found when a CPU turned away a query: its client has nothing left of this second's budget, and messages between these
 * ends are asked for, as the filters are. */
struct turned_away {
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 netns;
	__u32 ifindex;
	__u32 budget;
	__u32 generation; /* 0: none yet */
	__u32 until; /* tick_now() */
	__u16 port;
	__u16 pad;
};

struct dns_record {
	__u32 kind;
	__u16 id;
	__u16 pad;
	__u64 skb; /* of the query's last sighting */
	__u32 query_len; /* bytes of the DNS message, whatever was captured of it */
	__u32 response_len;
	__u32 query_captured;
	__u32 response_captured;
	__u8 flow_count;
	__u8 query_count;
	__u8 response_count;
	__u8 pad2[5];
	struct client client;
	struct tuple flows[FLOWS]; /* from client to server, also for responses */
	struct sighted query[PLACES];
	struct sighted response[PLACES];
	__u8 data[QUERY_BYTES + RESPONSE_BYTES]; /* the query, right behind it the response */
};
_Static_assert(sizeof(struct dns_record) == 1408, "read by agent/probes/layout.py");

struct dns_drop {
	__u32 kind;
	__u16 id;
	__u16 ip_id;
	__u64 skb;
	__u64 t_ns;
	struct tuple t; /* as in the packet */
	__u32 netns;
	__u32 ifindex;
	__u32 len; /* of the DNS message; of a TCP segment's payload */
	__u32 captured;
	__u32 seq;
	__u32 ack;
	char device[16];
	struct end end;
	__u8 tcp_flags;
	__u8 pad[7];
	__u8 data[QUERY_BYTES];
};
_Static_assert(sizeof(struct dns_drop) == 576, "read by agent/probes/layout.py");

BPF_HASH(pending, struct dns_key, struct dns_record, PENDING);
BPF_ARRAY(open_count, __s64, 1);		      /* entries of `pending`; the agent's sweep sets it right */
BPF_HASH(open_by_client, struct client, __s64, PENDING); /* how many of them each client has; likewise */
BPF_TABLE("lru_percpu_hash", struct client, struct budget, client_budgets, 1024);
BPF_PERCPU_ARRAY(turned_away, struct turned_away, CLIENTS);
BPF_ARRAY(refused, struct refused, REFUSED_SETS);
BPF_ARRAY(side, __u64, 1); /* which end of a message the filter names, enum side */
BPF_ARRAY(blank, struct dns_record, 1);
BPF_PERCPU_ARRAY(lone, struct dns_record, 2); /* one a program: a softirq may interrupt another program */
BPF_RINGBUF_OUTPUT(ring, RING_PAGES * 4); /* 20,000 records: a second of a busy server, should the agent have to wait */

/* A DNS message at a place. */
struct sighting {
	struct packet p;
	struct dns_key key;
	__u64 skb;
	__u64 dev;
	__u64 now;
	__u64 l3;      /* address of the IP header */
	__u64 payload; /* address of the DNS message */
	__u32 netns;
	__u32 ifindex;
	__u32 len;	/* of the message, as the UDP header says */
	__u32 linear;	/* how much of it is there to read */
	__u32 point;
	__u16 is_response;
	__u16 is_dns; /* else it is too short to be one */
};

/* Namespace and device. Returns 0 if they are not this node's. */
static __always_inline int locate(struct sighting *s, char *device)
{
	struct place place;

	find_place(&place, s->skb, s->dev, 0);
	s->netns = place.netns;
	s->ifindex = place.ifindex;
	if (device)
		__builtin_memcpy(device, place.device, 16);
	return is_own(s->netns);
}

/* Whether the agent was asked for the messages between these ends. The address :: stands for all. */
static __always_inline int are_wanted(const __u8 *client, const __u8 *server, __u16 port, __u8 proto)
{
	int zero = 0;
	__u64 *which = side.lookup(&zero);
	struct filter_key key = {.port = port, .proto = proto};

	if (filter.lookup(&key))
		return 1;
	__builtin_memcpy(key.addr, client, 16);
	if (filter.lookup(&key))
		return 1;
	if (!which || *which == SIDE_CLIENT)
		return 0;
	__builtin_memcpy(key.addr, server, 16);
	return filter.lookup(&key) != 0;
}

static __always_inline int wanted(struct sighting *s)
{
	struct tuple *t = &s->p.t;

	return s->is_response ? are_wanted(t->daddr, t->saddr, t->sport, t->proto)
			      : are_wanted(t->saddr, t->daddr, t->dport, t->proto);
}

/* What tells the exchange that a message belongs to. Returns 0 for what is no DNS message. */
static __always_inline int read_key(struct dns_key *key, struct sighting *s, struct headers *h)
{
	__u8 start[16];

	if (s->linear < HEADER + 4)
		return 0;
	if (bpf_probe_read_kernel(start, sizeof(start), (void *)s->payload))
		return 0;
	s->is_response = !!(start[2] & QR);
	key->id = be16(start);
	key->question = *(__u32 *)(start + HEADER);
	key->client_port = be16(s->is_response ? h->l4 + 2 : h->l4);
	return 1;
}

static __always_inline __u32 tag_of(struct dns_key *key)
{
	__u64 h = *(__u64 *)key * 0x9e3779b97f4a7c15ull;
	return h >> 32;
}

static __always_inline struct refused *refused_set(__u32 tag)
{
	__u32 set = tag % REFUSED_SETS;
	return refused.lookup(&set);
}

/* The time in ticks, which costs next to nothing; never 0. */
static __always_inline __u32 tick_now(void)
{
#ifdef TYPED_LOADS /* Linux has the helper from 5.6, for tracepoints later */
	return bpf_jiffies64() | 1;
#else
	return (bpf_ktime_get_ns() / TICK_NS) | 1;
#endif
}

/* Whether a message belongs to an exchange that was turned away: a query at its next device, or a response. */
static __always_inline int was_refused(struct dns_key *key, __u64 skb, int is_response)
{
	__u32 tag = tag_of(key);
	struct refused *set = refused_set(tag);

	if (!set)
		return 0;
#pragma unroll
	for (int i = 0; i < REFUSED_WAYS; i++) {
		if (set->tag[i] != tag || !set->tick[i])
			continue;
		__u32 since = tick_now() - set->tick[i];
		return is_response ? since < EXPIRES_TICKS : set->skb[i] == (__u32)(skb >> 6) && since < REFUSED_TICKS;
	}
	return 0;
}

/* Reads what tells whether the packet of an skb is of interest. Returns its protocol if one of its ports is asked for: nearly
 * all packets end before. Of TCP only drops are of interest here; its messages are read by the agent (agent/dns/tcp.py). */
static __always_inline int read_message(struct sighting *s, struct headers *h, __u64 skb, __u32 point)
{
	struct skb_head sh;

	s->l3 = ip_header(&sh, skb, point == POINT_RX);
	if (!s->l3 || !read_headers(h, s->l3) || h->later)
		return 0;
	if (h->proto != P_UDP && (point != POINT_DROP || h->proto != P_TCP))
		return 0;
	__u16 sport = be16(h->l4), dport = be16(h->l4 + 2);
	int from_server = port_wanted(sport), to_server = port_wanted(dport);
	if (!from_server && !to_server)
		return 0;
	s->skb = skb;
	s->point = point;
	s->now = bpf_ktime_get_ns();
	s->len = s->linear = 0;
	s->is_response = from_server && !to_server;
	s->key.client_port = s->is_response ? dport : sport;
	s->key.id = 0;
	s->key.question = 0;
	if (h->proto == P_TCP)
		return P_TCP;
	__u16 udp = be16(h->l4 + 4);
	s->len = udp > 8 ? udp - 8 : 0;
	s->payload = s->l3 + h->l4_offset + 8;
	__u64 bounds[2] = {s->payload, sh.head + sh.tail};
#ifdef TYPED_LOADS
	/* To the verifier what is computed from typed addresses is an address; copied, it is a number. */
	bpf_probe_read_kernel(bounds, sizeof(bounds), bounds);
#endif
	__u64 there = bounds[0] < bounds[1] ? bounds[1] - bounds[0] : 0;
	s->linear = there < s->len ? there : s->len;
	s->is_dns = read_key(&s->key, s, h);
	return P_UDP;
}

/* Reads the rest of a packet that is of interest. */
static __always_inline void read_rest(struct sighting *s, struct headers *h)
{
	struct skb_place place;

	parse(&s->p, h, s->l3);
	READ_VIEW(place, skb_place, s->skb);
	s->dev = place.dev;
}

/* The index of the packet's tuple among those of the record, in the direction from client to server. */
static __always_inline __u8 flow_index(struct dns_record *r, struct sighting *s)
{
	struct tuple t __attribute__((aligned(8))) = s->p.t;
	__u8 i;

	if (s->is_response) {
		__builtin_memcpy(t.saddr, s->p.t.daddr, 16);
		__builtin_memcpy(t.daddr, s->p.t.saddr, 16);
		t.sport = s->p.t.dport;
		t.dport = s->p.t.sport;
	}
#pragma unroll
	for (i = 0; i < FLOWS; i++) {
		if (i >= r->flow_count) {
			r->flows[i] = t;
			r->flow_count = i + 1;
			return i;
		}
		__u64 *a = (__u64 *)&r->flows[i], *b = (__u64 *)&t;
		if (a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4])
			return i;
	}
	return FLOWS - 1;
}

/* The smaller of the two, in a register that the verifier has seen compared: it forgets bounds of what clang copies. */
static __always_inline __u64 at_most(__u64 value, __u64 limit)
{
	asm volatile("" : "+r"(value));
	return value > limit ? limit : value;
}

static __always_inline void add_place(struct dns_record *r, struct sighting *s)
{
	struct sighted p = {.t_ns = s->now, .netns = s->netns, .ifindex = s->ifindex, .point = s->point};
	p.flow = flow_index(r, s);
	if (s->is_response) {
		__u32 n = at_most(r->response_count, PLACES - 1); /* the last place is worth more than the one before */
		r->response[n] = p;
		r->response_count = n + 1;
	} else {
		__u32 n = at_most(r->query_count, PLACES - 1);
		r->query[n] = p;
		r->query_count = n + 1;
		r->skb = s->skb;
	}
}

static __always_inline void take_query(struct dns_record *r, struct sighting *s)
{
	__u64 n = at_most(s->linear, QUERY_BYTES);
	if (bpf_probe_read_kernel(r->data, n, (void *)s->payload))
		n = 0;
	r->query_len = s->len;
	r->query_captured = n;
}

static __always_inline void take_response(struct dns_record *r, struct sighting *s)
{
	__u64 n = at_most(s->linear, RESPONSE_BYTES), at = at_most(r->query_captured, QUERY_BYTES);
	if (bpf_probe_read_kernel(r->data + at, n, (void *)s->payload))
		n = 0;
	r->response_len = s->len;
	r->response_captured = n;
}

/* Tables and budgets are shared by clients: each may take as much as is left for the others. One alone has half, of two
 * each has a third; so a flood takes its own records, and a client that asks now and then always finds room. */
static __always_inline int has_room(struct client *client)
{
	int zero = 0;
	__s64 *open = open_count.lookup(&zero), *own_open = open_by_client.lookup(client);

	return open && (own_open ? *own_open : 0) < PENDING - *open;
}

static __always_inline void add_open(struct client *client, __s64 change)
{
	int zero = 0;
	__s64 one = 1, *open = open_count.lookup(&zero), *own_open = open_by_client.lookup(client);

	if (open)
		__sync_fetch_and_add(open, change);
	if (own_open)
		__sync_fetch_and_add(own_open, change);
	else if (change > 0)
		open_by_client.update(client, &one);
}

/* Takes one record off this second's budget, within the client's share of it. */
static __always_inline int take_budget(struct client *client, __u64 now)
{
	int zero = 0;
	__u64 second = now >> 30; /* 1.07 s, as in may_emit() */
	struct budget first = {.second = second};
	struct config *cfg = config.lookup(&zero);
	struct budget *all = budgets.lookup(&zero), *share = client_budgets.lookup(client);

	if (!share) {
		client_budgets.update(client, &first);
		share = client_budgets.lookup(client);
	}
	if (!cfg || !all || !share)
		return 0;
	if (all->second != second) {
		all->second = second;
		all->used = 0;
	}
	if (share->second != second) {
		share->second = second;
		share->used = 0;
	}
	if (share->used + all->used >= cfg->budget)
		return 0;
	share->used++;
	all->used++;
	return 1;
}

/* may_emit() within the client's share of the budget. */
static __always_inline int may_emit_for(struct client *client, __u64 now)
{
	count(ACCOUNT_EMITTED);
	if (take_budget(client, now))
		return 1;
	count(ACCOUNT_BUDGET);
	return 0;
}

static __always_inline void set_client(struct client *client, struct sighting *s)
{
	__builtin_memset(client, 0, sizeof(*client));
	client->netns = s->netns;
	client->ifindex = s->ifindex;
	if (s->point != POINT_TX)
		__builtin_memcpy(client->addr, s->p.t.saddr, 16);
}

static __always_inline void output(struct dns_record *r, __u32 kind)
{
	r->kind = kind;
	__u64 size = at_most(__builtin_offsetof(struct dns_record, data) + r->query_captured + r->response_captured,
			     sizeof(*r));
	if (ring.ringbuf_output(r, size, BPF_RB_NO_WAKEUP))
		count(ACCOUNT_RING_FULL);
}

/* An exchange, which has had its part of the budget since it began. */
static __always_inline void emit(struct dns_record *r, __u32 kind)
{
	count(ACCOUNT_EMITTED);
	output(r, kind);
}

/* A response without a query, or what is no DNS message: on its own. */
static __always_inline int emit_lone(struct sighting *s)
{
	int slot = s->point & 1;
	struct dns_record *r = lone.lookup(&slot);

	if (!r)
		return 0;
	r->id = s->key.id;
	r->flow_count = r->query_count = r->response_count = 0;
	r->query_len = r->query_captured = r->response_len = r->response_captured = 0;
	set_client(&r->client, s);
	if (!may_emit_for(&r->client, s->now))
		return 0;
	add_place(r, s);
	if (s->is_response)
		take_response(r, s);
	else
		take_query(r, s);
	output(r, RECORD_LONE);
	return 0;
}

/* Notes a query of which nothing is kept, so that it is counted once and its response is no lone one. */
static __always_inline int refuse(struct dns_key *key, __u64 skb, int emitted, int cause)
{
	__u32 tag = tag_of(key), now = tick_now();
	struct refused *set = refused_set(tag);

	if (emitted)
		count(ACCOUNT_EMITTED);
	count(cause);
	if (!set)
		return 0;
	int oldest = 0;
#pragma unroll
	for (int i = 0; i < REFUSED_WAYS; i++) {
		if (set->tag[i] == tag) {
			oldest = i;
			break;
		}
		if (now - set->tick[i] > now - set->tick[oldest & (REFUSED_WAYS - 1)])
			oldest = i;
	}
	oldest &= REFUSED_WAYS - 1;
	set->tag[oldest] = tag;
	set->skb[oldest] = skb >> 6;
	set->tick[oldest] = now;
	return 0;
}

/* The same socket asks again, with the same id, and is heard this time. */
static __always_inline void forget_refused(struct dns_key *key)
{
	__u32 tag = tag_of(key);
	struct refused *set = refused_set(tag);

	if (!set)
		return;
#pragma unroll
	for (int i = 0; i < REFUSED_WAYS; i++)
		if (set->tag[i] == tag)
			set->tick[i] = 0;
}

static __always_inline int begin(struct sighting *s)
{
	int zero = 0;
	struct dns_record *empty = blank.lookup(&zero), *r;
	struct client client;

	if (!empty)
		return 0;
	set_client(&client, s);
	if (!has_room(&client))
		return refuse(&s->key, s->skb, 0, ACCOUNT_FLOWS_FULL);
	if (!take_budget(&client, s->now))
		return refuse(&s->key, s->skb, 1, ACCOUNT_BUDGET);
	if (pending.update(&s->key, empty))
		return refuse(&s->key, s->skb, 0, ACCOUNT_FLOWS_FULL);
	forget_refused(&s->key);
	count(ACCOUNT_FLOWS_CREATED);
	add_open(&client, 1);
	r = pending.lookup(&s->key);
	if (!r)
		return 0;
	r->client = client;
	r->id = s->key.id;
	take_query(r, s);
	add_place(r, s);
	return 0;
}

#ifdef TYPED_LOADS
/* Whether the filters name the ends of a query, and nothing is left of its client's budget for this second. */
static __always_inline int has_nothing_left(struct client *client, struct tuple *t, __u64 second)
{
	int zero = 0;
	struct config *cfg = config.lookup(&zero);
	struct budget *all = budgets.lookup(&zero), *share = client_budgets.lookup(client);

	if (!cfg || !all || !share || share->used + all->used < cfg->budget)
		return 0;
	if (all->second != second || share->second != second) /* as in take_budget() */
		return 0;
	return is_own(client->netns) && are_wanted(t->saddr, t->daddr, t->dport, P_UDP);
}

/* Whether a query, where it is sent, finds nothing left of the budget, as most do where they are very many: it is refused before
 * it is read. What was found of the client's last one is not looked up again. */
static __always_inline int is_turned_away(struct dns_key *key, __u64 skb, struct ports *ports)
{
	int zero = 0;
	struct client client = {};
	struct tuple t __attribute__((aligned(8)));
	struct config *cfg = config.lookup(&zero);
	__s64 *open = open_count.lookup(&zero);

	if (!cfg || !open || !device_of(skb, &client.netns, &client.ifindex))
		return 0;
	__u32 slot = (client.netns * 31 + client.ifindex) % CLIENTS;
	struct turned_away *last = turned_away.lookup(&slot);
	if (!last || (*open && pending.lookup(key)))
		return 0;
	read_addresses(&t, ports);
	t.dport = ports->dport;
	if ((__s32)(last->until - tick_now()) <= 0 || last->generation != cfg->generation || last->budget != cfg->budget ||
	    last->netns != client.netns || last->ifindex != client.ifindex || last->port != t.dport ||
	    !same_address(last->saddr, t.saddr) || !same_address(last->daddr, t.daddr)) {
		__u64 now = bpf_ktime_get_ns();
		if (!has_nothing_left(&client, &t, now >> 30))
			return 0;
		last->until = tick_now() + (SECOND_NS - now % SECOND_NS) / TICK_NS - 1;
		last->generation = cfg->generation;
		last->budget = cfg->budget;
		last->netns = client.netns;
		last->ifindex = client.ifindex;
		last->port = t.dport;
		__builtin_memcpy(last->saddr, t.saddr, 16);
		__builtin_memcpy(last->daddr, t.daddr, 16);
	}
	refuse(key, skb, 1, ACCOUNT_BUDGET);
	return 1;
}
#endif

/* Whether a packet need not be read: it is no UDP, has none of the ports asked for, or belongs to an exchange that was turned
 * away or is now, as nearly all packets of a node do. Told by a few loads, where loads are cheap; 0 where it is not known. */
static __always_inline int is_passed_over(__u64 skb, __u32 point)
{
#ifdef TYPED_LOADS
	struct skb_head sh;
	struct glance g;
	struct dns_key key;
	struct ports ports = {};
	__u64 message, start;
	__u32 begins, question;

	if (!glance_at(&g, &sh, skb, point == POINT_RX) || g.fragment & 0xff3f || /* more fragments, and the offset */
	    (g.version == 6 && g.proto != P_TCP && g.proto != P_UDP))
		return 0;
	if (g.proto != P_UDP)
		return 1;
	TYPED_LOAD(start, 64, TYPED(g.l4, BTF_in6_addr), 0);
	ports.l4 = g.l4;
	ports.version = g.version;
	ports.sport = __builtin_bswap16(start);
	ports.dport = __builtin_bswap16(start >> 16);
	ports.to_server = port_wanted(ports.dport);
	__u16 length = __builtin_bswap16(start >> 32);
	if (!ports.to_server && !port_wanted(ports.sport))
		return 1;
	if (length < 8 + HEADER + 4 || g.l4 + 8 + HEADER + 4 > sh.head + sh.tail)
		return 0;
	message = TYPED(g.l4 + 8, BTF_in6_addr);
	TYPED_LOAD(begins, 32, message, 0);
	TYPED_LOAD(question, 32, message, HEADER);
	int is_response = begins >> 16 & QR;
	key.id = __builtin_bswap16(begins);
	key.question = question;
	key.client_port = is_response ? ports.dport : ports.sport;
	if (was_refused(&key, skb, is_response))
		return 1;
	return point == POINT_TX && !is_response && ports.to_server && is_turned_away(&key, skb, &ports);
#else
	return 0;
#endif
}

static __always_inline int seen(__u64 skb, __u32 point)
{
	struct sighting s;
	struct headers h;

	if (is_passed_over(skb, point) || !read_message(&s, &h, skb, point))
		return 0;
	if (s.is_dns && was_refused(&s.key, skb, s.is_response))
		return 0;
	struct dns_record *r = s.is_dns ? pending.lookup(&s.key) : 0;
	read_rest(&s, &h);
	if (!r && !wanted(&s))
		return 0;
	if (!locate(&s, 0))
		return 0;
	if (!r)
		return s.is_response || !s.is_dns ? emit_lone(&s) : begin(&s);
	int at_first = r->query[0].netns == s.netns && r->query[0].ifindex == s.ifindex;
	if (!s.is_response) {
		if (at_first && r->query[0].point == s.point &&
		    (r->skb != s.skb || s.now - r->query[0].t_ns > SAME_PACKET_NS)) {
			emit(r, RECORD_REPEATED); /* the resolver asks again, from the same socket with the same id */
			add_open(&r->client, -1);
			pending.delete(&s.key);
			return begin(&s);
		}
		add_place(r, &s);
		return 0;
	}
	if (!r->response_count)
		take_response(r, &s);
	add_place(r, &s);
	if (at_first && r->query[0].point != s.point) {
		emit(r, RECORD_ANSWERED);
		add_open(&r->client, -1);
		pending.delete(&s.key);
	}
	return 0;
}

int on_receive(struct bpf_raw_tracepoint_args *ctx) /* net:netif_receive_skb */
{
	return seen(ctx->args[0], POINT_RX);
}

int on_queue(struct bpf_raw_tracepoint_args *ctx) /* net:net_dev_queue */
{
	return seen(ctx->args[0], POINT_TX);
}

int on_free(struct bpf_raw_tracepoint_args *ctx) /* skb:kfree_skb(skb, location, reason) */
{
	struct sighting s;
	struct headers h;
	char device[16] = {};

	if (!read_message(&s, &h, ctx->args[0], POINT_DROP))
		return 0;
	read_rest(&s, &h);
	struct dns_record *r = pending.lookup(&s.key);
	if (!r && !wanted(&s))
		return 0;
	if (!locate(&s, device))
		return 0;
	struct client client;
	if (r)
		client = r->client;
	else
		set_client(&client, &s);
	if (!may_emit_for(&client, s.now))
		return 0;
	struct dns_drop *e = ring.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count(ACCOUNT_RING_FULL);
		return 0;
	}
	e->kind = RECORD_DROP;
	e->id = s.key.id;
	e->ip_id = s.p.ip_id;
	e->skb = s.skb;
	e->t_ns = s.now;
	e->t = s.p.t;
	e->netns = s.netns;
	e->ifindex = s.ifindex;
	e->len = s.len;
	e->seq = s.p.seq;
	e->ack = s.p.ack;
	e->tcp_flags = s.p.tcp_flags;
	__builtin_memcpy(e->device, device, 16);
	__u32 n = s.linear;
	if (n > QUERY_BYTES)
		n = QUERY_BYTES;
	if (!n || bpf_probe_read_kernel(e->data, n, (void *)s.payload))
		n = 0;
	e->captured = n;
	fill_end(&e->end, ctx);
	ring.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}
