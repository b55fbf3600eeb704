-- The records of the agents' recorders, as the Collector's ClickHouse exporter writes logs (create_schema: false), sorted so
-- that a question about one Service reads that Service's part. The exporter fills the first sixteen columns by name.
CREATE TABLE IF NOT EXISTS genainet_records
(
    Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    TraceFlags UInt8,
    SeverityText LowCardinality(String),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String),
    Body String CODEC(ZSTD(3)),
    ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeSchemaUrl LowCardinality(String),
    ScopeName LowCardinality(String),
    ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    EventName LowCardinality(String),
    Node LowCardinality(String) MATERIALIZED ResourceAttributes['k8s.node.name'],
    Part LowCardinality(String) MATERIALIZED LogAttributes['genainet.part'],
    Service LowCardinality(String) MATERIALIZED LogAttributes['genainet.service'],
    Client LowCardinality(String) MATERIALIZED LogAttributes['genainet.client'],
    Outcome LowCardinality(String) MATERIALIZED LogAttributes['error.type'],
    Session Int64 MATERIALIZED toInt64OrZero(LogAttributes['genainet.session']),
    Number UInt32 MATERIALIZED toUInt32OrZero(LogAttributes['genainet.block']),
    Position UInt32 MATERIALIZED toUInt32OrZero(LogAttributes['genainet.record']),
    Flags UInt16 MATERIALIZED toUInt16OrZero(LogAttributes['genainet.flags']),
    Addresses Array(String) MATERIALIZED splitByChar(' ', LogAttributes['genainet.addresses']) CODEC(ZSTD(1)),
    INDEX addresses Addresses TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (Part, Service, Timestamp)
TTL toDateTime(Timestamp) + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 1
