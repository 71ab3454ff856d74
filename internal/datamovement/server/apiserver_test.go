package server

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// gone is a client whose first discovered version is not served any more.
type gone struct {
	*cluster
	lost string // version
}

func (g *gone) Served(ctx context.Context, group string, known []string) (string, error) {
	_, err := g.cluster.Served(ctx, group, known)
	if g.lost == known[0] {
		return known[1], err
	}
	return known[0], err
}

func (g *gone) Get(ctx context.Context, r kube.Resource, ns, name string, into any) error {
	if r.Version == g.lost {
		return kube.ErrVersionGone
	}
	return g.cluster.Get(ctx, r, ns, name, into)
}

// A version that goes away during the daemon's life is replaced by another one.
func TestVersionGoes(t *testing.T) {
	g := &gone{cluster: newCluster()}
	r := newAPIServer(g)
	var wf dws.Workflow
	for range 2 {
		if err := r.get(t.Context(), kindWorkflow, "default", "job7", &wf); err != nil {
			t.Fatal(err)
		}
	}
	g.lost = knownVersions[kindWorkflow.group][0]
	if err := r.get(t.Context(), kindWorkflow, "default", "job7", &wf); err != nil {
		t.Fatal(err)
	}
	want := []string{"discover dataworkflowservices.github.io", "get workflows default/job7", "get workflows default/job7", "discover dataworkflowservices.github.io", "get workflows default/job7"}
	if got := g.requests(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// One that goes again at once is an error, not a loop.
	g.lost = ""
	always := &never{g.cluster}
	if err := newAPIServer(always).get(t.Context(), kindWorkflow, "default", "job7", &wf); !errors.Is(err, kube.ErrVersionGone) {
		t.Error(err)
	}
}

type never struct{ *cluster }

func (never) Get(context.Context, kube.Resource, string, string, any) error {
	return kube.ErrVersionGone
}

func TestSelectorOf(t *testing.T) {
	for want, labels := range map[string]map[string]string{"": nil, "a=1": {"a": "1"}, "a=1,b=2,c=3": {"c": "3", "a": "1", "b": "2"}} {
		if got := selectorOf(labels); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
