package apiserver

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// ownServer runs the tests that affect the API server, one after another.
func ownServer(t *testing.T) {
	st := fixture.New(t)
	ctx, cancel := contextWithin(2 * time.Minute)
	defer cancel()
	server, err := st.StartCluster(ctx, lab.ClusterOptions{Dir: filepath.Join(st.Dir, "own-server")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
	}()
	for _, part := range []struct {
		name string
		test func(*env)
	}{
		{"older version only", olderVersionOnly},
		{"version removed while running", versionGoes},
		{"version of ClientMounts removed while running", mountsVersionGoes},
		{"no known version", noKnownVersion},
		{"definitions not installed", notInstalled},
		{"conversion webhook absent", webhookAbsent},
		{"paused", paused},
		{"killed and restarted", killedAndRestarted},
		{"requests after a graceful restart", func(s *env) { restartRequests(s, s.Cluster.Stop) }},
		{"requests after a kill", func(s *env) { restartRequests(s, s.Cluster.Kill) }},
		{"restarted with a new authority", newAuthority},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			s := onServer(t, server)
			part.test(s)
			s.finish()
		}) {
			return // the server may be in any state
		}
	}
}

// onServer returns an env with a server other than the common one.
func onServer(t *testing.T, server *lab.Cluster) *env {
	t.Helper()
	return bare(t, fixture.On(t, fixture.New(t).Lab, server))
}

// The server is paused and continues: no event is lost, and nothing is logged.
func paused(s *env) {
	s.start()
	stays := s.mounted()
	s.Must(s.Cluster.Pause())
	s.hold(8 * time.Second)
	s.isMounted(stays, true)
	s.Must(s.Cluster.Resume())
	s.mounted()
	s.logged()
}

// The server is killed and restarted with the same data. Two daemons watch it, one of them
// through a proxy that counts requests.
func killedAndRestarted(s *env) {
	counted := onServer(s.t, s.Cluster)
	counted.UseProxy()
	var stays [2]string
	for i, one := range []*env{s, counted} {
		one.start()
		stays[i] = one.mounted()
	}
	goes := s.mounted()
	counted.Proxy.ClearRequests()
	s.Must(s.Cluster.Kill())
	for _, one := range []*env{s, counted} {
		one.lost(1)
	}
	s.showsProblem("2 mounts ready for 2 ClientMounts")
	s.hold(4 * time.Second)
	ctx, cancel := contextWithin(time.Minute)
	defer cancel()
	s.Must(s.Cluster.Restart(ctx))
	s.Unmount(goes)
	for i, one := range []*env{s, counted} {
		one.back(1)
		one.mounted()
		one.isMounted(stays[i], true)
		one.onceMounted(stays[i])
	}
	s.isMounted(goes, false)
	if n := counted.Proxy.Count(lab.ClassList); n > 0 {
		s.t.Errorf("%d lists after the restart, want none", n)
	}
	counted.finish()
}

const (
	restartNodes = 10
	// mostRefusals is the maximum number of requests of a node that a started server
	// rejects: it responds with 401, 429 or 503 until its caches are filled. How long that
	// takes depends on the machine; the number is logged.
	mostRefusals = 5
)

// restartRequests counts the requests per node after a restart of the API server. Changes
// and deletions of objects during the restart are processed.
func restartRequests(s *env, end func() error) {
	nodes := []*env{s}
	for range restartNodes - 1 {
		nodes = append(nodes, onServer(s.t, s.Cluster))
	}
	for _, one := range nodes {
		one.UseProxy()
		one.start()
	}
	stays, goes := s.mounted(), s.mounted()
	s.Unmount(goes)
	s.settled(goes)
	for _, one := range nodes {
		if _, err := one.Proxy.WaitRequest(s.Context(soon), isWatch); err != nil {
			s.t.Fatal(err)
		}
		one.Proxy.ClearRequests()
	}
	s.Must(end())
	for _, one := range nodes {
		one.lost(1)
	}
	ctx, cancel := contextWithin(time.Minute)
	defer cancel()
	s.Must(s.Cluster.Restart(ctx))
	total := 0
	for _, one := range nodes {
		one.back(1)
		answered, refused := 0, 0
		for _, r := range one.Proxy.Requests() {
			switch {
			case r.Code() == http.StatusBadGateway:
				continue // the code of the proxy for a refused connection
			case r.Code() == http.StatusOK:
				answered++
			default:
				refused++
			}
			if r.Class != lab.ClassWatch || r.ResourceVersion == "" {
				s.t.Errorf("%s: %s from %q, want a watch from the last position", one.Node, r.Class, r.ResourceVersion)
			}
			s.t.Logf("%s: %s %s %d, from %s", r.Time.Format("05.000"), one.Node, r.Class, r.Code(), r.ResourceVersion)
		}
		if answered != 1 || refused > mostRefusals {
			s.t.Errorf("%s: %d requests succeeded and %d were rejected, want 1 and at most %d", one.Node, answered, refused, mostRefusals)
		}
		total += answered + refused
	}
	s.t.Logf("%.1f requests per node", float64(total)/restartNodes)
	s.onceMounted(stays)
	s.isMounted(stays, true)
	s.Remove(goes)
	s.Delete(goes)
	for _, one := range nodes[1:] {
		one.finish()
	}
}

// The cluster is set up again with another CA, other tokens and the same objects. After
// that the tool of the site replaces the files.
func newAuthority(s *env) {
	s.start()
	stays := s.mounted()
	s.Must(s.Cluster.Stop())
	s.lost(1)
	ctx, cancel := contextWithin(time.Minute)
	defer cancel()
	s.Must(s.Cluster.Restart(ctx, "--new-ca"))
	s.back(1)
	s.isMounted(stays, true)
	s.mounted()
	s.onceMounted(stays)
}
