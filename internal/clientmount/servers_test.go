package clientmount

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
)

func testServers(t *testing.T, text string) *dws.Servers {
	s := new(dws.Servers)
	if err := json.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

const twoRabbits = `{"spec":{"allocationSets":[
 {"label":"ost","storage":[{"name":"rabbit-01","allocationCount":2},{"name":"rabbit-02","allocationCount":1}]},
 {"label":"mgtmdt","storage":[{"name":"rabbit-01","allocationCount":1}]}]}}`

func TestServersText(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":       {`{"spec":{}}`, `{"mdt":[],"mgt":[],"mgtmdt":[],"nnfNode":[],"ost":[]}`},
		"two rabbits": {twoRabbits, `{"mdt":[],"mgt":[],"mgtmdt":["rabbit-01"],"nnfNode":["rabbit-01","rabbit-02"],"ost":["rabbit-01","rabbit-01","rabbit-02"]}`},
		"other label": {`{"spec":{"allocationSets":[{"label":"zzz","storage":[{"name":"r","allocationCount":1}]}]}}`,
			`{"mdt":[],"mgt":[],"mgtmdt":[],"nnfNode":["r"],"ost":[],"zzz":["r"]}`},
		"negative count": {`{"spec":{"allocationSets":[{"label":"ost","storage":[{"name":"r","allocationCount":-1}]}]}}`,
			`{"mdt":[],"mgt":[],"mgtmdt":[],"nnfNode":["r"],"ost":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := serversText(testServers(t, c.in))
			if err != nil || string(got) != c.want+"\n" {
				t.Errorf("%s %v\nwant %s", got, err, c.want)
			}
		})
	}
	if _, err := serversText(testServers(t, `{"spec":{"allocationSets":[{"label":"ost","storage":[{"name":"r","allocationCount":2000000000}]}]}}`)); err == nil {
		t.Error("two thousand million entries were accepted")
	}
}

func TestServersFile(t *testing.T) {
	storage := &nnf.StorageOwner{}
	storage.Name = "job7-0"
	storage.Labels = map[string]string{api.LabelOwnerKind: "Workflow", api.LabelWorkflowName: "job7", api.LabelWorkflowNamespace: "default"}
	instance := &nnf.StorageOwner{}
	instance.Labels = map[string]string{api.LabelOwnerKind: "PersistentStorageInstance", api.LabelOwnerName: "psi", api.LabelOwnerNamespace: "default"}
	for name, c := range map[string]struct {
		owner    string
		storage  *nnf.StorageOwner
		servers  int
		selector string
		written  bool
	}{
		"workflow":            {"NnfStorage", storage, 1, api.LabelWorkflowName + "=job7," + api.LabelWorkflowNamespace + "=default," + api.LabelDirectiveIndex + "=0", true},
		"persistent instance": {"NnfStorage", instance, 1, api.LabelOwnerKind + "=PersistentStorageInstance," + api.LabelOwnerName + "=psi," + api.LabelOwnerNamespace + "=default", true},
		"owned by an access":  {"NnfAccess", storage, 1, "", false},
		"no storage":          {"NnfStorage", nil, 1, "", false},
		"two objects":         {"NnfStorage", storage, 2, "*", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeLustre)
			b.rec.plan.ServersFile = true
			b.server.cm.Labels[api.LabelOwnerKind], b.server.cm.Labels[api.LabelDirectiveIndex] = c.owner, "0"
			b.server.storage = c.storage
			for range c.servers {
				b.server.servers = append(b.server.servers, testServers(t, twoRabbits))
			}
			if res := b.reconcile(); res.failed {
				t.Fatalf("the file must never fail the mount: %+v", res)
			}
			ran := strings.Join(b.machine.done(), "\n")
			if got := strings.Contains(ran, "write "+testPath+"/.nnf-servers.json"); got != c.written {
				t.Errorf("written: %v\n%s", got, ran)
			}
			if c.selector != "*" && b.server.selector != c.selector {
				t.Errorf("selector %q, want %q", b.server.selector, c.selector)
			}
		})
	}
	// The plan decides, for the daemon as for its own test.
	t.Run("exactly when the plan has the step", func(t *testing.T) {
		for _, wanted := range []bool{true, false} {
			b := newBench(t, dws.TypeLustre)
			b.rec.plan.ServersFile = wanted
			b.server.cm.Labels[api.LabelOwnerKind], b.server.cm.Labels[api.LabelDirectiveIndex] = "NnfStorage", "0"
			m := &b.server.cm.Spec.Mounts[0]
			m.SetPermissions, m.UserID, m.GroupID = !wanted, 1001, 1002 // which decides about chown alone
			b.server.storage, b.server.servers = storage, []*dws.Servers{testServers(t, twoRabbits)}
			if res := b.reconcile(); res.failed {
				t.Fatalf("wanted %v: %+v", wanted, res)
			}
			step := b.work.record.Mounts[0].Plan.MountStep(plan.ServersFile)
			ran := strings.Join(b.machine.done(), "\n")
			if written := strings.Contains(ran, "write "); (step != nil) != wanted || written != wanted {
				t.Errorf("wanted %v: step %+v, written %v\n%s", wanted, step, written, ran)
			}
			if wanted && !strings.Contains(ran, "1001:1002") {
				t.Errorf("the file has another owner than the entry names\n%s", ran)
			}
		}
	})
	t.Run("a failure does not fail the mount", func(t *testing.T) {
		b := newBench(t, dws.TypeLustre)
		b.rec.plan.ServersFile = true
		b.server.cm.Labels[api.LabelOwnerKind], b.server.cm.Labels[api.LabelDirectiveIndex] = "NnfStorage", "0"
		b.server.storage, b.server.servers = storage, []*dws.Servers{testServers(t, twoRabbits)}
		b.machine.fail["write"] = errors.New("read-only file system")
		if res := b.reconcile(); res.failed || !b.server.object().Status.AllReady {
			t.Errorf("%+v", res)
		}
	})
}
