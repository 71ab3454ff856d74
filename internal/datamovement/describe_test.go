package datamovement

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
)

// Of two mounts with the same path, the description has the one from which a copy is made.
func TestDescribedMounts(t *testing.T) {
	old, fresh := clientMount(node, "/mnt/b", dws.TypeGFS2), clientMount(node, "/mnt/b/", dws.TypeGFS2)
	old.Name, fresh.Name = "a-old", "b-fresh"
	old.Spec.DesiredState = dws.Unmounted
	var all []Mount
	for _, cm := range []*dws.ClientMount{
		old, clientMount(node, "/mnt/c", dws.TypeXFS), fresh, clientMount(node, "relative", dws.TypeGFS2), clientMount(node, "/mnt/$X", dws.TypeGFS2), clientMount(node, "/mnt/a", dws.TypeGFS2),
	} {
		all = append(all, Mounts(cm)...)
	}
	list, omitted := DescribedMounts(all)
	var got []string
	for _, m := range list {
		got = append(got, m.Path+" "+m.Given)
	}
	const want = "[ /mnt/$X /mnt/a /mnt/a /mnt/b /mnt/b/ /mnt/c /mnt/c  relative]"
	if fmt.Sprint(got) != want || omitted != 0 || list[2].Name != "b-fresh" {
		t.Errorf("%q, %d omitted", got, omitted)
	}
	if found, err := findMount("/mnt/b/x", all); err != nil || found.Name != list[2].Name {
		t.Errorf("FindMount: %v, %v", found, err)
	}
	for _, i := range []int{0, 4} {
		_, err := RequestFrom(job7, list[i], nil)
		wantFault(t, err, ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "cannot be the source of a copy")
	}
}

func TestDescriptionIsBounded(t *testing.T) {
	var all []Mount
	var systems []lus.LustreFileSystem
	for i := range 200 {
		all = append(all, mountAt(node, fmt.Sprintf("/mnt/%03d", i), dws.TypeGFS2))
		systems = append(systems, lus.LustreFileSystem{Spec: lus.LustreFileSystemSpec{MountRoot: fmt.Sprintf("/lus/%03d", i)}})
	}
	if list, omitted := DescribedMounts(all); len(list) != maxDescribed || omitted != 200-maxDescribed {
		t.Errorf("%d mounts, %d omitted", len(list), omitted)
	}
	if list, omitted := DestinationsV2(systems); len(list) != maxDescribed || omitted != 200-maxDescribed || list[1].Path != "/lus/001" {
		t.Errorf("%d destinations, %d omitted", len(list), omitted)
	}
	long := strings.Repeat("x", 1<<20)
	s := StorageV2(Mount{Given: "/" + long, Type: long}, errors.New(long))
	if len(s.Path)+len(s.Type)+len(s.Error.Message) > 4*maxDescribedText {
		t.Errorf("%d, %d and %d bytes", len(s.Path), len(s.Type), len(s.Error.Message))
	}
	if p := ProblemV2(NewFault(ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "%s", long)); len(p.Message) > 2*maxDescribedText {
		t.Errorf("%d bytes", len(p.Message))
	}
}

func TestDestinationsV2(t *testing.T) {
	var systems []lus.LustreFileSystem
	for _, root := range []string{"/lus/b/", "/lus/a", "", "/", "relative", "/lus/$X", "/lus//b"} {
		systems = append(systems, lus.LustreFileSystem{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: lus.LustreFileSystemSpec{MountRoot: root}})
	}
	list, omitted := DestinationsV2(systems)
	if len(list) != 2 || list[0].Path != "/lus/a" || list[1].Path != "/lus/b" || omitted != 0 {
		t.Errorf("%v, %d omitted", list, omitted)
	}
}

func TestWithoutStep(t *testing.T) {
	f := failed(v2.ErrorReason_MOUNT_NOT_READY, "not mounted")
	for _, err := range []error{f, StepMount.At(f), StepGFS2.At(StepMount.At(f))} {
		if got := WithoutStep(err); got != error(f) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if WithoutStep(nil) != nil {
		t.Error("nil is an error")
	}
	wantFault(t, WithoutStep(StepWorkflow.At(context.DeadlineExceeded)), ErrUnavailable, v2.ErrorReason_TIMEOUT, "timed out")
}
