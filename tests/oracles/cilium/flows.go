package main

import (
	"net/netip"
	"strings"

	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/policy/types"
	"github.com/cilium/cilium/pkg/u8proto"
)

// meetAll makes every end of a flow known to every agent, before any policy map is made.
func (c *cluster) meetAll() error {
	for _, f := range c.in.Flows {
		for _, end := range []string{f.From, f.To} {
			for _, p := range c.in.Pods {
				if _, err := c.identityOf(c.agentOf(p.Node), end); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// identityOf is who an end is to an agent.
func (c *cluster) identityOf(a *agent, end string) (*identity.Identity, error) {
	if p := c.pods[end]; p != nil {
		if p.HostNetwork {
			return c.nodeIdentity(a, p.Node), nil
		}
		return p.id, nil
	}
	addr, err := netip.ParseAddr(end)
	if err != nil {
		return c.nameIdentity(a, end)
	}
	if p := c.podAt[addr]; p != nil {
		return p.id, nil
	}
	if node, ok := c.nodeAt[addr]; ok {
		return c.nodeIdentity(a, node), nil
	}
	return c.outsideIdentity(a, addr), nil
}

func (c *cluster) nodeIdentity(a *agent, name string) *identity.Identity {
	lbls := labels.Labels{}
	if name == a.node && name != "" {
		lbls.MergeLabels(labels.LabelHost)
	} else {
		lbls.MergeLabels(labels.LabelRemoteNode)
	}
	for addr, n := range c.nodeAt {
		if n == name && c.servers[addr] {
			lbls.MergeLabels(labels.LabelKubeAPIServer)
		}
	}
	id := c.identity(lbls, identity.IdentityScopeRemoteNode)
	a.meet(id) // the host's labels are its agent's own
	return id
}

// outsideIdentity is that of the longest known prefix that holds an address, with the labels of the wider ones.
func (c *cluster) outsideIdentity(a *agent, addr netip.Addr) *identity.Identity {
	lbls := labels.Labels{}
	if c.servers[addr] {
		lbls.MergeLabels(labels.LabelKubeAPIServer)
	}
	for bits := addr.BitLen(); bits >= 0; bits-- {
		prefix, _ := addr.Prefix(bits)
		for k, l := range c.prefixes[prefix] {
			narrower := l.Source == labels.LabelSourceCIDR && lbls.HasSource(labels.LabelSourceCIDR)
			if _, ok := lbls[k]; !ok && !narrower {
				lbls[k] = l
			}
		}
	}
	lbls.AddWorldLabel(addr)
	id := c.identity(lbls, identity.IdentityScopeLocal)
	a.meet(id)
	return id
}

// nameIdentity is what the addresses of a domain name get once a pod has asked for it.
func (c *cluster) nameIdentity(a *agent, name string) (*identity.Identity, error) {
	lbls := labels.Labels{}
	for _, selector := range c.names {
		expression, err := selector.ToRegex()
		if err != nil {
			return nil, err
		}
		if expression.MatchString(strings.ToLower(strings.TrimSuffix(name, ".")) + ".") {
			l := selector.IdentityLabel()
			lbls[l.Key] = l
		}
	}
	lbls.AddWorldLabel(netip.IPv4Unspecified())
	id := c.identity(lbls, identity.IdentityScopeLocal)
	a.meet(id)
	return id, nil
}

// subject is the pod whose policy map judges an end, nil where no policy of pods governs it.
func (c *cluster) subject(end string) *pod {
	p := c.pods[end]
	if addr, err := netip.ParseAddr(end); err == nil {
		p = c.podAt[addr]
	}
	if p == nil || p.HostNetwork {
		return nil
	}
	return p
}

func (c *cluster) judge(f flow) answer {
	proto, err := u8proto.ParseProtocol(f.Protocol)
	if err != nil {
		return answer{Error: err.Error()}
	}
	from, to := c.subject(f.From), c.subject(f.To)
	if from != nil && from == to {
		return answer{Egress: &direction{Verdict: "allow"}, Ingress: &direction{Verdict: "allow"}}
	}
	egress, err := c.side(from, f.To, types.EgressKey().WithPortProto(proto, f.Port))
	if err != nil {
		return answer{Error: err.Error()}
	}
	ingress, err := c.side(to, f.From, types.IngressKey().WithPortProto(proto, f.Port))
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Egress: egress, Ingress: ingress}
}

// side is the verdict of a pod's policy map on a peer.
func (c *cluster) side(own *pod, peer string, key types.Key) (*direction, error) {
	if own == nil {
		return &direction{Verdict: "allow"}, nil
	}
	a := c.agentOf(own.Node)
	id, err := c.identityOf(a, peer)
	if err != nil {
		return nil, err
	}
	held, err := a.policyOf(own)
	if err != nil {
		return nil, err
	}
	entry, _, _ := held.Lookup(key.WithIdentity(id.ID))
	found := &direction{Verdict: "allow", L7: entry.IsRedirectEntry(), Auth: entry.AuthRequirement.IsExplicit()}
	if entry.IsDeny() {
		found.Verdict = "deny"
	}
	return found, nil
}
