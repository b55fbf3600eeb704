package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	ipcache "github.com/cilium/cilium/pkg/ipcache/types"
	"github.com/cilium/cilium/pkg/k8s"
	ciliumv2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	"github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2/validator"
	networkingv1 "github.com/cilium/cilium/pkg/k8s/slim/k8s/api/networking/v1"
	"github.com/cilium/cilium/pkg/k8s/utils"
	"github.com/cilium/cilium/pkg/labels"
	engine "github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	"github.com/cilium/cilium/pkg/policy/types"
	policyutils "github.com/cilium/cilium/pkg/policy/utils"
)

// loaded is a policy as the repository takes it.
type loaded struct {
	entries  types.PolicyEntries
	resource ipcache.ResourceID
}

func (c *cluster) addPolicy(raw json.RawMessage) error {
	var meta struct {
		Kind     string
		Metadata struct{ Name, Namespace string }
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return err
	}
	if meta.Kind == "CiliumCIDRGroup" {
		return c.addGroup(raw)
	}
	entries, kind, err := c.parse(meta.Kind, raw)
	if err != nil {
		name := meta.Metadata.Name
		if meta.Metadata.Namespace != "" {
			name = meta.Metadata.Namespace + "/" + name
		}
		c.refused[meta.Kind+" "+name] = err.Error()
		return nil
	}
	for _, prefix := range engine.GetCIDRPrefixes(entries) {
		c.label(prefix.Masked(), labels.GetCIDRLabels(prefix.Masked()))
	}
	for _, entry := range entries {
		for _, selector := range entry.L3 {
			if fqdn, ok := selector.GetFQDNSelector(); ok {
				c.names = append(c.names, *fqdn)
			}
		}
	}
	c.policies = append(c.policies, loaded{entries, ipcache.NewResourceID(kind, meta.Metadata.Namespace, meta.Metadata.Name)})
	return nil
}

// parse hands an object to Cilium's parser of its kind, as the agent's watchers do.
func (c *cluster) parse(kind string, raw json.RawMessage) (types.PolicyEntries, ipcache.ResourceKind, error) {
	if kind == "NetworkPolicy" {
		var policy networkingv1.NetworkPolicy
		if err := json.Unmarshal(raw, &policy); err != nil {
			return nil, "", err
		}
		entries, err := k8s.ParseNetworkPolicy(quiet, clusterName, &policy)
		return entries, ipcache.ResourceKindNetpol, err
	}
	check, resource := c.schema.ValidateCNP, ipcache.ResourceKindCNP
	if kind == "CiliumClusterwideNetworkPolicy" {
		check, resource = c.schema.ValidateCCNP, ipcache.ResourceKindCCNP
	}
	if err := refusedBySchema(check, raw); err != nil {
		return nil, "", fmt.Errorf("schema: %w", err)
	}
	var policy ciliumv2.CiliumNetworkPolicy // Parse takes one without a namespace for a clusterwide policy
	if err := json.Unmarshal(raw, &policy); err != nil {
		return nil, "", err
	}
	rules, err := policy.Parse(quiet, clusterName)
	if err != nil {
		return nil, "", err
	}
	return policyutils.RulesToPolicyEntries(rules), resource, nil
}

// refusedBySchema says what the API server would refuse. Fields that the schema doesn't have it drops.
func refusedBySchema(check func(*unstructured.Unstructured) error, raw json.RawMessage) error {
	var object unstructured.Unstructured
	if err := json.Unmarshal(raw, &object.Object); err != nil {
		return err
	}
	err := check(&object)
	var unknown validator.ErrUnknownFields
	if errors.As(err, &unknown) {
		return nil
	}
	return err
}

func (c *cluster) addGroup(raw json.RawMessage) error {
	var group ciliumv2.CiliumCIDRGroup
	if err := json.Unmarshal(raw, &group); err != nil {
		return err
	}
	for _, text := range group.Spec.ExternalCIDRs {
		prefix, err := netip.ParsePrefix(string(text))
		if err != nil {
			return err
		}
		lbls := labels.Labels{}
		for k, v := range utils.RemoveCiliumLabels(group.Labels) {
			plain := labels.NewLabel(k, v, labels.LabelSourceCIDRGroup)
			encoded := labels.EncodedCIDRGroupLabel(plain.Key, plain.Value, plain.Source)
			lbls[plain.Key], lbls[encoded.Key] = plain, encoded
		}
		name := api.LabelForCIDRGroupRef(group.Name)
		lbls[name.Key] = name
		lbls.AddWorldLabel(prefix.Addr())
		c.label(prefix.Masked(), lbls)
	}
	return nil
}

func (c *cluster) label(prefix netip.Prefix, lbls labels.Labels) {
	if c.prefixes[prefix] == nil {
		c.prefixes[prefix] = labels.Labels{}
	}
	c.prefixes[prefix].MergeLabels(lbls)
}
