package datamovement

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/lus"
)

func system(name, root string) lus.LustreFileSystem {
	return lus.LustreFileSystem{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: lus.LustreFileSystemSpec{MountRoot: root}}
}

func TestMatchDestination(t *testing.T) {
	systems := []lus.LustreFileSystem{
		system("root", "/"), system("empty", ""), system("relative", "lus"), system("hostile", "/lus/$(id)"), system("up", "/lus/x/.."),
		system("a", "/lus/a"), system("ab", "/lus/ab/"), system("inner", "/lus/a/inner"), system("twin", "/lus/a/inner/"),
	}
	for dest, want := range map[string]string{
		"/lus/a": "a", "/lus/a/": "a", "/lus/a/x": "a", "/lus/ab/x": "ab", "/lus/a/inner/x": "inner", "/lus/a/inner": "inner", "/lus/a/innerx": "a",
	} {
		for range 2 { // the order of the list does not matter
			ref, err := MatchDestination(dest, systems)
			if err != nil || ref.Name != want || ref.Kind != "LustreFileSystem" || ref.Namespace != "default" {
				t.Errorf("%s: %+v %v, want %s", dest, ref, err, want)
			}
			for i, j := 0, len(systems)-1; i < j; i, j = i+1, j-1 {
				systems[i], systems[j] = systems[j], systems[i]
			}
		}
	}
	for _, c := range []struct {
		dest   string
		kind   error
		reason Reason
		text   string
	}{
		{"/lus/b/x", ErrFailed, ReasonDestinationUnknown, "unable to find a LustreFileSystem resource matching /lus/b/x"},
		{"/lus", ErrFailed, ReasonDestinationUnknown, "unable to find"},
		{"/etc/cron.d/x", ErrFailed, ReasonDestinationUnknown, "unable to find"},
		{"lus/a", ErrInvalid, ReasonInvalidField, "destination \"lus/a\" is refused: it must be an absolute path"},
		{"/lus/a/../../etc", ErrInvalid, ReasonInvalidField, ".."},
		{"/lus/a/x y", ErrInvalid, ReasonInvalidField, "is made of"},
		{"", ErrInvalid, ReasonInvalidField, "destination is missing"},
	} {
		_, err := MatchDestination(c.dest, systems)
		wantFault(t, err, c.kind, c.reason, c.text)
	}
	_, err := MatchDestination("/lus/a", nil)
	wantFault(t, err, ErrFailed, ReasonDestinationUnknown, "no LustreFileSystem resources found")
}
