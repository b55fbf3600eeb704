// Verdicts of Cilium's own policy engine, for comparison with the plugin's.
//
// Reads JSON documents, one a cluster (input), and prints one line of JSON for each (output). Identities, parsers, the
// policy repository and the policy maps are Cilium's; reading, the look-up of addresses and the answers are ours.
// Options have the values that Cilium's Helm chart installs.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2/validator"
	"github.com/cilium/cilium/pkg/labelsfilter"
	"github.com/cilium/cilium/pkg/option"
	engine "github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
)

const clusterName = "default"

var quiet = slog.New(slog.DiscardHandler)

type input struct {
	Namespaces map[string]map[string]string `json:"namespaces"`
	Pods       []pod                        `json:"pods"`
	Nodes      []node                       `json:"nodes"`
	APIServers []string                     `json:"apiServers"`
	Policies   []json.RawMessage            `json:"policies"`
	Flows      []flow                       `json:"flows"`
}

type port struct {
	Name     string `json:"name"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
}

type node struct {
	Name string   `json:"name"`
	IPs  []string `json:"ips"`
}

// flow is a new connection; an end is "namespace/pod", an address or a domain name.
type flow struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
}

// output names the policies that are not in force, with the reason: the schema ("schema: …") or the agent refuses them.
type output struct {
	Errors map[string]string `json:"errors"`
	Flows  []answer          `json:"flows"`
}

type answer struct {
	Egress  *direction `json:"egress,omitempty"`
	Ingress *direction `json:"ingress,omitempty"`
	Error   string     `json:"error,omitempty"`
}

// direction is the verdict of one pod's policy map. L7 and Auth: a proxy or an authentication decides further.
type direction struct {
	Verdict string `json:"verdict"`
	L7      bool   `json:"l7,omitempty"`
	Auth    bool   `json:"auth,omitempty"`
}

func configure() error {
	option.Config.ClusterName, option.Config.EnableIPv4 = clusterName, true
	option.Config.UnsafeDaemonConfigOption.AllowLocalhost = option.AllowLocalhostAlways
	api.InitEntities(clusterName)
	engine.SetPolicyEnabled(option.DefaultEnforcement)
	return labelsfilter.ParseLabelPrefixCfg(quiet, nil, nil, "")
}

func run(in input, schema *validator.NPValidator) (out *output, err error) {
	defer func() { // the engine panics on what an API server would have refused
		if problem := recover(); problem != nil {
			err = fmt.Errorf("the engine panics: %v", problem)
		}
	}()
	c, err := newCluster(in, schema)
	if err != nil {
		return nil, err
	}
	if err := c.meetAll(); err != nil {
		return nil, err
	}
	out = &output{Errors: c.refused, Flows: []answer{}}
	for _, f := range in.Flows {
		out.Flows = append(out.Flows, c.judge(f))
	}
	return out, nil
}

func main() {
	schema, err := validator.NewNPValidator(quiet)
	if err = errors.Join(err, configure()); err != nil {
		fail(err)
	}
	documents, lines := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var in input
		if err := documents.Decode(&in); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			fail(err)
		}
		out, err := run(in, schema)
		if err != nil {
			fail(err)
		}
		if err := lines.Encode(out); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(2)
}
