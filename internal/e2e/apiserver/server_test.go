package apiserver

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// ownServer runs, one after another, the tests that harm the API server.
func ownServer(t *testing.T) {
	st := world.New(t)
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
		{"version goes while running", versionGoes},
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

// onServer is an env on another server than the common one.
func onServer(t *testing.T, server *lab.Cluster) *env {
	t.Helper()
	return bare(t, world.On(t, world.New(t).Lab, server))
}

// A server that stops moving and continues: nothing is lost, nothing is said.
func paused(s *env) {
	s.start()
	stays := s.mounted()
	s.Must(s.Cluster.Pause())
	s.hold(8 * time.Second)
	s.isMounted(stays, true)
	s.Must(s.Cluster.Resume())
	s.mounted()
	s.story()
}

// The server dies and comes back with the same data. Two daemons watch it: one
// by itself, one through a proxy that counts.
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
	s.showsTrouble("2 mounts ready for 2 ClientMounts")
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
		s.t.Errorf("%d lists after the restart, none is needed", n)
	}
	counted.finish()
}

const (
	restartNodes = 10
	// mostRefusals is how often a node may ask a server that has started and is
	// not ready: it answers 401, 429 or 503 until its caches are filled. How long
	// that takes is the machine's business; the figure is logged.
	mostRefusals = 5
)

// restartRequests counts what a restart of the API server costs per node. The
// objects that changed and went away meanwhile are noticed all the same.
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
				continue // the proxy's word for a connection that was refused
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
			s.t.Errorf("%s: %d requests were answered and %d refused, want 1 and at most %d", one.Node, answered, refused, mostRefusals)
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

// A cluster that is set up again: other authority, other tokens, same objects.
// The site's tool replaces the files afterwards.
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
