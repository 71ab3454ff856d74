package identities

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// scaleNodes is the variable for the number of nodes of TestScale, such as 11136.
const scaleNodes = "IDENTITIES_SCALE_NODES"

// The objects of many nodes: how long nnf-deploy takes, how large they are, and what they cost the API
// server. Run it for a large number of nodes alone: the cluster has their objects afterwards.
func TestScale(t *testing.T) {
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv(scaleNodes), "40"))
	if err != nil {
		t.Fatal(err)
	}
	s := &administrator{system: &system{Fixture: fixture.New(t), t: t}}
	s.kubeconfig = s.Cluster.Dir + "/admin.kubeconfig"
	s.file = s.Machine(s.Node, nodes)
	s.Namespace(s.Node)
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "none", "namespace": s.Node}})
	s.expect(s.identities("remove"), 0)
	size := s.metric("apiserver_storage_size_bytes")
	refused := s.refusedCPU()

	run := func(what string, texts ...string) time.Duration {
		before, err := s.Cluster.Usage()
		s.Must(err)
		started := time.Now()
		s.expect(s.identities("apply"), 0, texts...)
		took := time.Since(started)
		after, err := s.Cluster.Usage()
		s.Must(err)
		t.Logf("%s: %.1f s, %.1f s of CPU of the API server and etcd", what, took.Seconds(), (after.CPU - before.CPU).Seconds())
		return took
	}
	count := strconv.Itoa(nodes)
	if took := run("apply", count+" nodes: "+count+" changed"); took > 15*time.Minute {
		t.Errorf("%v for %d nodes", took, nodes)
	}
	run("apply again", count+" nodes: "+count+" unchanged")
	a := s.expect(s.identities("status"), 0, count+" complete")
	if len(a.stdout) > 2000 {
		t.Errorf("%d bytes of output", len(a.stdout))
	}
	objects, largest := 0, 0
	for _, kind := range []string{"ServiceAccount", "RoleBinding", "ClusterRoleBinding", "ClusterRole", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} {
		var text bytes.Buffer
		_, err := s.Cluster.Read(s.Context(patience), lab.Path(kind, "", "")+"?labelSelector=app.kubernetes.io/managed-by=nnf-deploy", &text)
		s.Must(err)
		var list struct{ Items []json.RawMessage }
		s.Must(json.Unmarshal(text.Bytes(), &list))
		objects += len(list.Items)
		for _, o := range list.Items {
			largest = max(largest, len(o))
		}
	}
	if largest > 64<<10 {
		t.Errorf("the largest object has %d bytes", largest)
	}
	wait.Pass(t, time.Second, "the API server to use the bindings")
	t.Logf("%d nodes: %d objects, the largest %d bytes as JSON, the file of etcd grew from %.1f to %.1f MB; a refused request took %v of CPU before, %v after",
		nodes, objects, largest, size/1e6, s.metric("apiserver_storage_size_bytes")/1e6, refused, s.refusedCPU())
	started := time.Now()
	s.expect(s.identities("remove"), 0)
	t.Logf("remove: %.1f s", time.Since(started).Seconds())
}

// refusedCPU returns the CPU of the API server for a request that no role permits.
func (s *administrator) refusedCPU() time.Duration {
	s.t.Helper()
	o, err := request(create(lab.Path("ServiceAccount", s.Node, "none")+"/token", lab.Object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": 3600},
	}), s.t, s.Cluster.Client)
	s.Must(err)
	c := s.Client([]byte(o.String("status", "token")))
	const requests = 500
	before, err := s.Cluster.Usage()
	s.Must(err)
	for range requests {
		if _, err := request(get(lab.Path("ClientMount", s.Node, "none")), s.t, c); err == nil {
			s.t.Fatal("an account without a role can read ClientMounts")
		}
	}
	after, err := s.Cluster.Usage()
	s.Must(err)
	return (after.CPU - before.CPU) / requests
}

// metric returns the sum of a metric of the API server.
func (s *administrator) metric(name string) (sum float64) {
	s.t.Helper()
	var text strings.Builder
	_, err := s.Cluster.Read(s.Context(patience), "/metrics", &text)
	s.Must(err)
	for line := range strings.Lines(text.String()) {
		if rest, ok := strings.CutPrefix(line, name); ok && (strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, " ")) {
			fields := strings.Fields(line)
			value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			s.Must(err)
			sum += value
		}
	}
	if sum == 0 {
		s.t.Errorf("the API server has no metric %s", name)
	}
	return sum
}
