package server

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

func named(name string, labels map[string]string) *nnf.DataMovement {
	return &nnf.DataMovement{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// A grave is found for an hour, by its name and by its labels.
func TestGravesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g graves
		if _, ok := g.find("a"); ok {
			t.Error("found before there is one")
		}
		g.clear("a")
		g.bury(named("a", map[string]string{"x": "1"}))
		begin := time.Now()
		time.Sleep(graveTime)
		if found, ok := g.find("a"); !ok || found.dm.Name != "a" || !found.at.Equal(begin) {
			t.Errorf("after an hour: %+v %v", found, ok)
		}
		if n := len(g.matching(map[string]string{"x": "1"})); n != 1 {
			t.Errorf("%d by the label", n)
		}
		time.Sleep(time.Nanosecond)
		if n := len(g.matching(map[string]string{"x": "1"})); n != 0 {
			t.Errorf("%d by the label, later", n)
		}
		if _, ok := g.find("a"); ok || len(g.m) != 0 {
			t.Errorf("found later, %d are kept", len(g.m))
		}
	})
}

// However many are cancelled, the memory is bounded: the oldest go first, and
// those whose time is over before them.
func TestGravesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g graves
		for i := range maxGraves + 10 {
			g.bury(named(fmt.Sprint(i), nil))
			time.Sleep(time.Millisecond)
		}
		if len(g.m) != maxGraves {
			t.Errorf("%d are kept", len(g.m))
		}
		for name, want := range map[string]bool{"0": false, "9": false, "10": true, fmt.Sprint(maxGraves + 9): true} {
			if _, ok := g.find(name); ok != want {
				t.Errorf("%s: %v", name, ok)
			}
		}
		time.Sleep(graveTime + time.Minute)
		g.bury(named("last", nil))
		if len(g.m) != 1 {
			t.Errorf("%d are kept though their time is over", len(g.m))
		}
	})
}

func TestGravesMatching(t *testing.T) {
	var g graves
	g.bury(named("a", map[string]string{"x": "1", "y": "1"}))
	g.bury(named("b", map[string]string{"x": "1", "y": "2"}))
	g.bury(named("c", nil))
	for _, tt := range []struct {
		labels map[string]string
		want   []string
	}{
		{nil, []string{"a", "b", "c"}},
		{map[string]string{"x": "1"}, []string{"a", "b"}},
		{map[string]string{"x": "1", "y": "2"}, []string{"b"}},
		{map[string]string{"x": "2"}, nil},
		{map[string]string{"z": "1"}, nil},
	} {
		var got []string
		for _, dm := range g.matching(tt.labels) {
			got = append(got, dm.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.labels, got, tt.want)
		}
	}
}
