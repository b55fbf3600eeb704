package main

import (
	"math"
	"sync"

	"github.com/cilium/cilium/pkg/endpoint/regeneration"
	envoypolicy "github.com/cilium/cilium/pkg/envoy/policy"
	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/identity/identitymanager"
	engine "github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/u8proto"
)

// agent is what one node sees. Agents differ in one thing: which node is the host, and which are remote ones.
type agent struct {
	node     string
	repo     *engine.Repository
	policies map[identity.NumericIdentity]engine.SelectorPolicy
	maps     map[string]*engine.EndpointPolicy
}

func (c *cluster) agentOf(node string) *agent {
	if found := c.agents[node]; found != nil {
		return found
	}
	repo := engine.NewPolicyRepository(quiet, identity.ListReservedIdentities(), nil,
		envoypolicy.NewEnvoyL7RulesTranslator(quiet, nil), identitymanager.NewIDManager(quiet), nil)
	repo.SetNamedPortsGetter(c.ports)
	a := &agent{node, repo, map[identity.NumericIdentity]engine.SelectorPolicy{}, map[string]*engine.EndpointPolicy{}}
	for _, id := range c.ids {
		a.meet(id)
	}
	for _, p := range c.policies {
		repo.ReplaceByResource(p.entries, p.resource)
	}
	c.agents[node] = a
	return a
}

// meet makes an identity known to the agent.
func (a *agent) meet(id *identity.Identity) {
	added := identity.IdentityMap{id.ID: id.LabelArray}
	var wait sync.WaitGroup
	a.repo.GetSelectorCache().UpdateIdentities(added, nil, &wait)
	wait.Wait()
	a.repo.UpdateIdentities(added, nil)
}

// policyOf is the policy map of a pod. It holds the identities that the agent knew when it was made.
func (a *agent) policyOf(p *pod) (*engine.EndpointPolicy, error) {
	key := p.Namespace + "/" + p.Name
	if found := a.maps[key]; found != nil {
		return found, nil
	}
	selected := a.policies[p.id.ID]
	if selected == nil {
		var err error
		if selected, _, err = a.repo.ComputeSelectorPolicy(p.id); err != nil {
			return nil, err
		}
		a.policies[p.id.ID] = selected
	}
	made := selected.DistillPolicy(quiet, owner{p}, map[string]uint16{engine.FallbackRedirectID: math.MaxUint16})
	made.Ready()
	a.maps[key] = made
	return made, nil
}

// owner is a pod as the engine asks for it.
type owner struct{ pod *pod }

func (o owner) GetID() uint64 { return uint64(o.pod.id.ID) }
func (o owner) GetIngressNamedPort(name string, proto u8proto.U8proto) uint16 {
	number, _ := o.pod.named.GetNamedPort(name, proto)
	return number
}
func (o owner) PolicyDebug(string, ...any)                  {}
func (o owner) IsHost() bool                                { return false }
func (o owner) PreviousMapStateSizes() engine.MapStateSizes { return engine.MapStateSizes{} }
func (o owner) RegenerateIfAlive(*regeneration.ExternalRegenerationMetadata) <-chan bool {
	done := make(chan bool)
	close(done)
	return done
}
