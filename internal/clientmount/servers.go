package clientmount

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// serversFileName is the file in a Lustre file system's root that tells jobs
// which rabbits serve it (contract clientmountd.md 7.3).
const serversFileName = ".nnf-servers.json"

// serversLimit bounds how many names one allocation may add.
const serversLimit = 1 << 16

// writeServersFile writes that file. It needs rights that the shipped role
// does not give, so mount.servers_file is off unless a site asks for it.
func (a *attempt) writeServersFile(p *plan.Plan, s *plan.Step) error {
	servers, err := a.findServers()
	if err != nil {
		return err
	}
	text, err := serversText(servers)
	if err != nil {
		return err
	}
	return a.machine.WriteFileIn(p.Path, serversFileName, text, s.UID, s.GID)
}

// findServers goes from the object's owner, an NnfStorage, to the one Servers
// object of the same allocation.
func (a *attempt) findServers() (*dws.Servers, error) {
	storage := new(nnf.StorageOwner)
	version, err := a.remote.nnfVersion(a.ctx, false)
	if err != nil {
		return nil, err
	}
	res := kube.Resource{Group: api.GroupNNF, Version: version, Plural: "nnfstorages", Kind: "NnfStorage"}
	if err := a.remote.client.Get(a.ctx, res, a.cm.Label(api.LabelOwnerNamespace), a.cm.Label(api.LabelOwnerName), storage); err != nil {
		return nil, err
	}
	var keys []string
	values := map[string]string{}
	add := func(key, value string) { keys = append(keys, key); values[key] = value }
	switch kind := storage.Labels[api.LabelOwnerKind]; kind {
	case "Workflow":
		add(api.LabelWorkflowName, storage.Labels[api.LabelWorkflowName])
		add(api.LabelWorkflowNamespace, storage.Labels[api.LabelWorkflowNamespace])
		add(api.LabelDirectiveIndex, a.cm.Label(api.LabelDirectiveIndex))
	case "PersistentStorageInstance":
		add(api.LabelOwnerKind, kind)
		add(api.LabelOwnerName, storage.Labels[api.LabelOwnerName])
		add(api.LabelOwnerNamespace, storage.Labels[api.LabelOwnerNamespace])
	default:
		return nil, fmt.Errorf("NnfStorage %s belongs to a %.60q, neither to a Workflow nor to a PersistentStorageInstance", storage.Name, kind)
	}
	var selector []string
	for _, k := range keys {
		if values[k] == "" {
			return nil, fmt.Errorf("label %s is missing, cannot find the Servers object", k)
		}
		selector = append(selector, k+"="+values[k])
	}
	mounts := a.remote.mounts()
	list, err := a.remote.client.Servers(a.ctx, kube.Resource{Group: mounts.Group, Version: mounts.Version, Plural: "servers", Kind: "Servers"}, strings.Join(selector, ","))
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("%d Servers objects match %s, expected one", len(list), strings.Join(selector, ","))
	}
	return list[0], nil
}

// serversText is one line of JSON with sorted keys; the five known ones are
// always there. A rabbit stands once per allocation, in nnfNode once in all.
func serversText(s *dws.Servers) ([]byte, error) {
	out := map[string][]string{"mdt": {}, "mgt": {}, "mgtmdt": {}, "nnfNode": {}, "ost": {}}
	total := 0
	for _, set := range s.Spec.AllocationSets {
		for _, st := range set.Storage {
			if total += max(st.AllocationCount, 0); total > serversLimit {
				return nil, errors.New("the Servers object lists too many allocations")
			}
			for range st.AllocationCount {
				out[set.Label] = append(out[set.Label], st.Name)
			}
			if !slices.Contains(out["nnfNode"], st.Name) {
				out["nnfNode"] = append(out["nnfNode"], st.Name)
			}
		}
	}
	b, err := json.Marshal(out)
	return append(b, '\n'), err
}
