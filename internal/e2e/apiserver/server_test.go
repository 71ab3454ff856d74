package apiserver

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// ownServer plays, one after another, the scenes that harm the API server.
func ownServer(t *testing.T) {
	st := stage.New(t)
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
		play func(*scene)
	}{
		{"older version only", olderVersionOnly},
		{"version goes while running", versionGoes},
		{"no known version", noKnownVersion},
		{"definitions not installed", notInstalled},
		{"conversion webhook absent", webhookAbsent},
		{"paused", paused},
		{"killed and restarted", killedAndRestarted},
		{"restarted with a new authority", newAuthority},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			s := onServer(t, server)
			part.play(s)
			s.finish()
		}) {
			return // the server may be in any state
		}
	}
}

// onServer is a scene on another server than the common one.
func onServer(t *testing.T, server *lab.Cluster) *scene {
	t.Helper()
	st := stage.New(t)
	st.Cluster = server
	st.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata(st.Node, "")})
	return bareScene(t, st)
}

// A server that stops moving and goes on: nothing is lost, nothing is said.
func paused(s *scene) {
	s.start()
	stays := s.mounted()
	if err := s.Cluster.Pause(); err != nil {
		s.t.Fatal(err)
	}
	s.hold(8 * time.Second)
	s.isMounted(stays, true)
	if err := s.Cluster.Resume(); err != nil {
		s.t.Fatal(err)
	}
	s.mounted()
	s.story()
}

// The server dies and comes back with the same data. Two daemons watch it: one
// by itself, one through a proxy that counts.
func killedAndRestarted(s *scene) {
	counted := onServer(s.t, s.Cluster)
	counted.useProxy()
	var stays [2]string
	for i, one := range []*scene{s, counted} {
		one.start()
		stays[i] = one.mounted()
	}
	goes := s.mounted()
	counted.proxy.ClearRequests()
	if err := s.Cluster.Kill(); err != nil {
		s.t.Fatal(err)
	}
	for _, one := range []*scene{s, counted} {
		one.lost(1)
	}
	s.showsTrouble("2 mounts ready for 2 ClientMounts")
	s.hold(4 * time.Second)
	ctx, cancel := contextWithin(time.Minute)
	defer cancel()
	if err := s.Cluster.Restart(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.Want(goes, "unmounted")
	s.Await(goes, "unmounted")
	for i, one := range []*scene{s, counted} {
		one.back(1)
		one.mounted()
		one.isMounted(stays[i], true)
		one.onceMounted(stays[i])
	}
	s.isMounted(goes, false)
	if n := counted.proxy.Count(lab.ClassList); n > 1 {
		s.t.Errorf("%d lists after the restart, at most 1 is needed", n)
	}
	counted.finish()
}

// A cluster that is set up again: other authority, other tokens, same objects.
// The site's tool replaces the files afterwards.
func newAuthority(s *scene) {
	s.start()
	stays := s.mounted()
	if err := s.Cluster.Stop(); err != nil {
		s.t.Fatal(err)
	}
	s.lost(1)
	ctx, cancel := contextWithin(time.Minute)
	defer cancel()
	if err := s.Cluster.Restart(ctx, "--new-ca"); err != nil {
		s.t.Fatal(err)
	}
	s.back(1)
	s.isMounted(stays, true)
	s.mounted()
	s.onceMounted(stays)
}
