package server

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func named(name string, labels map[string]string) *nnf.DataMovement {
	return &nnf.DataMovement{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid of " + name), Labels: labels}}
}

func of(uid int64, dm *nnf.DataMovement) *nnf.DataMovement {
	dm.Spec.UserID = uid
	return dm
}

func (g *tombstones) size() (n int) {
	for _, own := range g.users {
		n += len(own)
	}
	return max(n, len(g.names))
}

// A tombstone is found for an hour, by its name and by its labels.
func TestTombstonesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g tombstones
		if _, ok := g.find("a"); ok {
			t.Error("found before there is one")
		}
		g.drop("a")
		g.add(named("a", map[string]string{"x": "1"}))
		begin := time.Now()
		wait.Advance(tombstoneTime)
		if found, ok := g.find("a"); !ok || found.dm.Name != "a" || !found.at.Equal(begin) {
			t.Errorf("after an hour: %+v %v", found, ok)
		}
		if n := len(g.matching(map[string]string{"x": "1"})); n != 1 {
			t.Errorf("%d by the label", n)
		}
		wait.Advance(time.Nanosecond)
		if n := len(g.matching(map[string]string{"x": "1"})); n != 0 {
			t.Errorf("%d by the label, later", n)
		}
		if _, ok := g.find("a"); ok || g.size() != 0 {
			t.Errorf("found later, %d are kept", g.size())
		}
	})
}

// However many a user cancels, the memory is bounded, the oldest go first, and
// those of another user stay.
func TestTombstonesAreBoundedPerUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g tombstones
		g.add(of(1002, named("of another", nil)))
		for i := range 5 * tombstonesPerUser {
			g.add(of(1001, named(fmt.Sprint(i), nil)))
			wait.Advance(time.Millisecond)
		}
		if g.size() != tombstonesPerUser+1 {
			t.Errorf("%d are kept", g.size())
		}
		for name, want := range map[string]bool{
			"0": false, fmt.Sprint(4*tombstonesPerUser - 1): false, fmt.Sprint(4 * tombstonesPerUser): true,
			fmt.Sprint(5*tombstonesPerUser - 1): true, "of another": true,
		} {
			if _, ok := g.find(name); ok != want {
				t.Errorf("%s: %v", name, ok)
			}
		}
		wait.Advance(tombstoneTime + time.Minute)
		g.add(of(1003, named("last", nil)))
		if g.size() != 1 {
			t.Errorf("%d are kept though their time is over", g.size())
		}
	})
}

// A tombstone is for one object: events of an earlier one with the same name change
// nothing.
func TestTombstonesOfOneName(t *testing.T) {
	var g tombstones
	first, second := named("a", nil), named("a", nil)
	second.UID = "second"
	g.add(first)
	g.add(second)
	g.dropObject(first)
	if found, ok := g.find("a"); !ok || found.dm.UID != "second" || g.size() != 1 {
		t.Errorf("%+v %v, %d are kept", found.dm, ok, g.size())
	}
	g.drop("a")
	if _, ok := g.find("a"); ok || g.size() != 0 {
		t.Errorf("found after it was dropped, %d are kept", g.size())
	}
}

func TestTombstonesMatching(t *testing.T) {
	var g tombstones
	g.add(named("a", map[string]string{"x": "1", "y": "1"}))
	g.add(named("b", map[string]string{"x": "1", "y": "2"}))
	g.add(named("c", nil))
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
