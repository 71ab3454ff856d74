// Package identities tests the accounts of single nodes on a real API server: which requests
// with the token of one node the server refuses, which it permits, and that the daemons work
// with such tokens. For the requests it sends itself, no daemon runs.
//
// It must not know how the objects are made that give nodes these accounts.
package identities

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) {
	if fakenode.IsSSH() {
		fakenode.Main()
	}
	os.Exit(fixture.Main(m))
}

// patience limits how long the server may take to use new roles and policies, and the calls of a
// test, on a busy machine.
const patience = 3 * time.Minute

// system is a cluster with four compute nodes that have their own accounts: the node of the
// fixture, a second one on the same rabbit, one on another rabbit, and an external one.
type system struct {
	*fixture.Fixture
	t                  *testing.T
	near, far, distant string // the second node, that of the other rabbit, the external one
	other              string // the other rabbit
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{Fixture: fixture.New(t), t: t}
	s.near, s.far, s.distant, s.other = s.Node+"-near", s.Node+"-far", s.Node+"-distant", s.Rabbit+"-other"
	for _, ns := range []string{s.near, s.far, s.distant, s.Rabbit, s.other} {
		s.Namespace(ns)
	}
	configuration := fixture.SystemConfiguration(s.System, []any{
		fixture.StorageNode(s.Rabbit, s.Node, s.near), fixture.StorageNode(s.other, s.far),
	}, map[string]any{"name": s.distant})
	s.Apply(configuration, fixture.FileSystem("global", fixture.Global), fixture.MovementProfile("default", true))
	s.UseProfile(fixture.ProfileSpec{})
	for _, o := range s.NodeObjects(configuration) {
		s.ApplyStrict(o)
	}
	return s
}

// token requests a token of a daemon's account on a node.
func (s *system) token(daemon, node string) []byte {
	s.t.Helper()
	return []byte(s.NodeToken(daemon, node, life))
}

// tokenOf requests a token of an account.
func (s *system) tokenOf(a product.Account) []byte {
	s.t.Helper()
	o, err := request(tokenOf(a), s.t, s.Cluster.Client)
	s.Must(err)
	return []byte(o.String("status", "token"))
}

// client returns a client with the account of a daemon on a node.
func (s *system) client(daemon, node string) *lab.Client {
	s.t.Helper()
	return s.Client(s.token(daemon, node))
}

// call is a request to the API server.
type call struct {
	method, path, contentType string
	body                      any
}

const (
	mergePatch = "application/merge-patch+json"
	jsonPatch  = "application/json-patch+json"
	applyPatch = "application/apply-patch+yaml"
	plainJSON  = "application/json"
)

func get(path string) call               { return call{method: http.MethodGet, path: path} }
func remove(path string) call            { return call{method: http.MethodDelete, path: path} }
func create(path string, o any) call     { return call{http.MethodPost, path, plainJSON, o} }
func replace(path string, o any) call    { return call{http.MethodPut, path, plainJSON, o} }
func merge(path string, change any) call { return call{http.MethodPatch, path, mergePatch, change} }
func edit(path string, operations ...any) call {
	return call{http.MethodPatch, path, jsonPatch, operations}
}
func apply(path string, o any) call {
	return call{http.MethodPatch, path + "?fieldManager=node&force=true", applyPatch, o}
}

// dry returns the request without its effect.
func (c call) dry() call {
	sign := "?"
	if strings.Contains(c.path, "?") {
		sign = "&"
	}
	c.path += sign + "dryRun=All"
	return c
}

func (c call) String() string {
	body, _ := json.Marshal(c.body)
	return fmt.Sprintf("%s %s %s", c.method, c.path, body)
}

// tokenOf requests a token of an account.
func tokenOf(a product.Account) call {
	return create(lab.Path("ServiceAccount", a.Namespace, a.Name)+"/token", lab.Object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": 3600},
	})
}

// request sends a request.
func request(c call, t *testing.T, as *lab.Client) (lab.Object, error) {
	t.Helper()
	var body []byte
	if c.body != nil {
		var err error
		if body, err = json.Marshal(c.body); err != nil {
			t.Fatal(err)
		}
	}
	return as.Do(t.Context(), c.method, c.path, c.contentType, body)
}

// status returns the status code of a response and its message.
func status(err error) (code int, message string) {
	if refused := (*lab.StatusError)(nil); errors.As(err, &refused) {
		return refused.Code, refused.Message
	}
	if err != nil {
		return 0, err.Error()
	}
	return http.StatusOK, ""
}
