package main

import (
	"maps"
	"net/netip"

	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/k8s"
	"github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2/validator"
	corev1 "github.com/cilium/cilium/pkg/k8s/slim/k8s/api/core/v1"
	metav1 "github.com/cilium/cilium/pkg/k8s/slim/k8s/apis/meta/v1"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/labelsfilter"
	"github.com/cilium/cilium/pkg/policy/api"
	ciliumtypes "github.com/cilium/cilium/pkg/types"
)

type pod struct {
	Namespace      string            `json:"namespace"`
	Name           string            `json:"name"`
	Labels         map[string]string `json:"labels"`
	ServiceAccount string            `json:"serviceaccount"`
	IPs            []string          `json:"ips"`
	Node           string            `json:"node"`
	HostNetwork    bool              `json:"hostNetwork"`
	Ports          []port            `json:"ports"`

	id    *identity.Identity
	named ciliumtypes.NamedPortMap
}

// cluster is what all agents know.
type cluster struct {
	in       input
	schema   *validator.NPValidator
	pods     map[string]*pod
	podAt    map[netip.Addr]*pod
	nodeAt   map[netip.Addr]string
	servers  map[netip.Addr]bool
	policies []loaded
	names    []api.FQDNSelector
	prefixes map[netip.Prefix]labels.Labels
	ids      map[string]*identity.Identity
	ports    namedPorts
	agents   map[string]*agent
	refused  map[string]string
}

// namedPorts are those of all pods, by identity.
type namedPorts struct {
	ciliumtypes.NamedPortMultiMap
	update func(identity.NumericIdentity, ciliumtypes.NamedPortMap)
}

func (n namedPorts) GetNamedPorts() ciliumtypes.NamedPortMultiMap { return n.NamedPortMultiMap }

func newCluster(in input, schema *validator.NPValidator) (*cluster, error) {
	ports := ciliumtypes.NewNamedPortMultiMap()
	update := func(id identity.NumericIdentity, m ciliumtypes.NamedPortMap) { ports.Update(id, nil, m) }
	c := &cluster{
		in: in, schema: schema, pods: map[string]*pod{}, podAt: map[netip.Addr]*pod{}, nodeAt: map[netip.Addr]string{},
		servers: map[netip.Addr]bool{}, prefixes: map[netip.Prefix]labels.Labels{}, ids: map[string]*identity.Identity{},
		agents: map[string]*agent{}, refused: map[string]string{}, ports: namedPorts{ports, update},
	}
	for _, n := range in.Nodes {
		for _, ip := range n.IPs {
			c.nodeAt[netip.MustParseAddr(ip)] = n.Name
		}
	}
	for _, ip := range in.APIServers {
		c.servers[netip.MustParseAddr(ip)] = true
	}
	for i := range in.Pods {
		c.addPod(&in.Pods[i])
	}
	for _, raw := range in.Policies {
		if err := c.addPolicy(raw); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// addPod gives a pod the identity that its agent would give it. One on the host network is its node.
func (c *cluster) addPod(p *pod) {
	c.pods[p.Namespace+"/"+p.Name] = p
	if p.HostNetwork {
		return
	}
	for _, ip := range p.IPs {
		c.podAt[netip.MustParseAddr(ip)] = p
	}
	slim := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, Labels: p.Labels}}
	slim.Spec.ServiceAccountName = p.ServiceAccount
	container := corev1.Container{}
	for _, q := range p.Ports {
		container.Ports = append(container.Ports, corev1.ContainerPort{
			Name: q.Name, ContainerPort: q.Port, Protocol: corev1.Protocol(q.Protocol)})
	}
	slim.Spec.Containers = []corev1.Container{container}
	namespace := maps.Clone(c.in.Namespaces[p.Namespace])
	if namespace == nil {
		namespace = map[string]string{}
	}
	namespace["kubernetes.io/metadata.name"] = p.Namespace // set by the API server
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.Namespace, Labels: namespace}}
	named, raw := k8s.GetPodMetadata(quiet, object, slim)
	own, _ := labelsfilter.Filter(labels.Map2Labels(raw, labels.LabelSourceK8s))
	for _, l := range k8s.NamedPortsIdentityLabels(named) {
		own[l.Key] = l
	}
	p.named, p.id = named, c.identity(own, 0)
	c.ports.update(p.id.ID, named)
}

// identity is that of a set of labels: a reserved one, or the next free number of its scope.
func (c *cluster) identity(lbls labels.Labels, scope identity.NumericIdentity) *identity.Identity {
	if found := identity.LookupReservedIdentityByLabels(lbls); found != nil {
		return found
	}
	key := string(lbls.SortedList())
	if _, ok := c.ids[key]; !ok {
		c.ids[key] = identity.NewIdentity(scope|identity.NumericIdentity(1000+len(c.ids)), lbls)
	}
	return c.ids[key]
}
