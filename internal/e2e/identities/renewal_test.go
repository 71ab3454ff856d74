package identities

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/deploy/identities"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// life is that of the tokens of tokenOf. A proxy adds most of it to the date of responses, so that a
// daemon renews a token immediately.
const life = time.Hour

// nearlyOver makes daemons believe that 90 % of the life of their token have passed. The times in
// tokens are whole seconds, so the next token is issued in another second.
func (s *system) nearlyOver() {
	started := time.Now()
	wait.Within(s.t, patience, "the next second", func() bool { return time.Since(started) > time.Second })
	s.Proxy.Skew(life * 90 / 100)
}

// renewed waits until a daemon has stored a token that is newer than that of the token file, and
// returns it.
func (s *system) renewed(daemon string) string {
	s.t.Helper()
	given, err := os.ReadFile(s.Token)
	s.Must(err)
	path := filepath.Join(s.State(daemon), kube.StoredToken)
	wait.Within(s.t, patience, "the renewed token", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	data, err := os.ReadFile(path)
	s.Must(err)
	stored := strings.TrimSpace(string(data))
	old, err := kube.ClaimsOf(strings.TrimSpace(string(given)))
	s.Must(err)
	fresh, err := kube.ClaimsOf(stored)
	s.Must(err)
	d, _ := product.Of(daemon)
	if fresh.Subject != d.NodeAccount(s.Node).User() || fresh.UID == "" || fresh.UID != old.UID || !fresh.Issued.After(old.Issued) || fresh.Life() != life {
		s.t.Errorf("%+v was renewed as %+v", old, fresh)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		s.t.Errorf("%v %v", info, err)
	}
	if info, err := os.Stat(s.State(daemon)); err != nil || info.Mode().Perm() != 0o700 {
		s.t.Errorf("%v %v", info, err)
	}
	if _, err := request(get(lab.Path("ClientMount", s.Node, "")), s.t, s.Client([]byte(stored))); err != nil {
		s.t.Errorf("the stored token: %v", err)
	}
	return stored
}

// reported waits until clientmountd reports a token that meets a condition.
func (s *system) reported(what string, ok func(*mountstate.Token) bool) {
	s.t.Helper()
	var state struct{ Token *mountstate.Token }
	wait.Within(s.t, patience, what, func() bool {
		data, err := os.ReadFile(filepath.Join(s.Runtime, "daemon.json"))
		return err == nil && json.Unmarshal(data, &state) == nil && state.Token != nil && ok(state.Token)
	})
}

// clientmountd renews its token, uses the new one after a restart, and works with a token of the
// account that was created again after all earlier tokens were revoked.
func TestRenewal(t *testing.T) {
	s := newSystem(t)
	s.Mount("m", fixture.MountSpec{Path: s.Path("m"), Type: "xfs"})
	path := lab.Path("ClientMount", s.Node, "m")
	s.useAccount("clientmountd", merge(path+"/status", lab.Object{}), merge(path, nested("x", "metadata", "labels", "new")))
	s.nearlyOver()
	daemon := s.Start()
	stored := s.renewed("clientmountd")
	file := filepath.Join(s.State("clientmountd"), kube.StoredToken)
	s.reported("the renewed token", func(k *mountstate.Token) bool {
		return k.Identity == "per-node" && k.File == file && k.Condition == mountstate.TokenValid && k.Renewal != nil
	})
	s.Proxy.Skew(0)
	s.Stop(daemon)
	text := logOf(daemon)
	if !strings.Contains(text, "the token was renewed") || strings.Contains(text, stored) {
		t.Errorf("the log has\n%s", text)
	}
	daemon = s.Start()
	s.reported("the stored token", func(k *mountstate.Token) bool { return k.File == file })

	s.Must(s.Cluster.Delete(s.Context(s.Patience), "ServiceAccount", s.Node, "clientmountd"))
	for _, o := range identities.ForNode(s.Node) {
		s.ApplyStrict(o)
	}
	s.Proxy.Reset()
	s.Token = s.Write("token", s.token("clientmountd", s.Node))
	s.reported("the token of the new account", func(k *mountstate.Token) bool { return k.File == s.Token && k.Condition == mountstate.TokenValid })
	s.Stop(daemon)
	if text := logOf(daemon); !strings.Contains(text, "the account was created again since") {
		t.Errorf("the log has\n%s", text)
	}
}

// nnf-dm renews its token as well. It runs only while jobs need it, so it records the state of its
// token, also that of a renewal that the server refuses.
func TestRenewalOfMover(t *testing.T) {
	s := newSystem(t)
	job := s.Job("job-"+s.Node, 1001, 0)
	collection := lab.Path("NnfDataMovement", s.Rabbit, "")
	s.useAccount("nnf-dm", create(collection, movement(s.Rabbit, "probe", s.Node, 1001, 1001)), create(collection, movement(s.Rabbit, "probe", s.near, 1001, 1001)))
	s.nearlyOver()
	start := func() *lab.Process {
		t.Helper()
		process := s.StartMover()
		// The answer of the API server to this request has the time.
		if _, err := pb.NewDataMoverClient(s.Dial()).List(s.Context(patience), &pb.DataMovementListRequest{Workflow: job.Ref()}); err != nil {
			t.Fatal(err)
		}
		return process
	}
	process := start()
	s.renewed("nnf-dm")
	s.recorded("the renewed token", func(k *mountstate.Token) bool {
		return k.Identity == "per-node" && k.File == filepath.Join(s.State("nnf-dm"), kube.StoredToken) && k.Condition == mountstate.TokenValid && k.Renewal != nil
	})
	s.Stop(process)
	for _, r := range s.Proxy.Requests() {
		if code := r.Code(); code == http.StatusForbidden || code == http.StatusUnauthorized {
			t.Errorf("%s %s: %d", r.Method, r.Path, code)
		}
	}
	if text := logOf(process); !strings.Contains(text, "the token was renewed") {
		t.Errorf("the log has\n%s", text)
	}

	s.Must(s.Cluster.Delete(s.Context(s.Patience), "RoleBinding", s.Node, "compute-daemons-nnf-dm"))
	client := s.client("nnf-dm", s.Node)
	wait.Within(t, patience, "the refusal of token requests", func() bool {
		_, err := request(tokenOf(product.Account{Name: "nnf-dm", Namespace: s.Node}), t, client)
		code, _ := status(err)
		return code == http.StatusForbidden
	})
	s.Proxy.Skew(life * 95 / 100)
	process = start()
	s.recorded("the refused renewal", func(k *mountstate.Token) bool {
		return k.Condition == mountstate.TokenFailing && strings.Contains(k.Error, "may not create serviceaccounts/token") && strings.HasSuffix(k.Hint, "nnf-deploy identities apply "+s.Node)
	})
	s.Stop(process)
	s.Proxy.Skew(0)
	s.recorded("the same after the end of the daemon", func(k *mountstate.Token) bool { return k.Condition == mountstate.TokenFailing })
}

// recorded waits until nnf-dm has recorded a token that meets a condition, as other programs read it.
func (s *system) recorded(what string, ok func(*mountstate.Token) bool) {
	s.t.Helper()
	r := daemon.TokenRecord{Program: "nnf-dm", Directory: s.State("nnf-dm"), TokenFile: s.Token}
	wait.Within(s.t, patience, what, func() bool {
		t, err := r.Read(time.Now())
		s.Must(err)
		return t != nil && ok(t)
	})
}
