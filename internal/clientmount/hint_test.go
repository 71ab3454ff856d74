package clientmount

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// A hint must fit the cause, through whatever it was wrapped in.
func TestHints(t *testing.T) {
	failing := func(cause error) error { return &node.CommandError{Line: "umount /x", Err: cause} }
	profile := schema.GroupResource{Group: "nnf.cray.hpe.com", Resource: "nnfstorageprofiles"}
	for name, test := range map[string]struct {
		severity dws.Severity
		cause    error
		want     string
	}{
		"fatal":      {dws.Fatal, errors.New("unable to find labels"), "retrying will not help"},
		"roots":      {dws.Fatal, fmt.Errorf("refused: %w", plan.ErrOutsideRoots), "add it to mount.roots"},
		"no program": {dws.Major, failing(exec.ErrNotFound), "not installed"},
		"no volume":  {dws.Major, fmt.Errorf("%w vg/lv", errNoLV), "nvme list"},
		"busy":       {dws.Major, &node.CommandError{Line: "umount /x", Stderr: "umount: /x: target is busy.", Err: node.ExitStatus(32)}, "have ended"},
		"in use":     {dws.Major, &node.CommandError{Line: "lvchange vg/lv", Stderr: "  Logical volume vg/lv in use.", Err: node.ExitStatus(5)}, "deactivates the volume as soon as"},
		"link":       {dws.Major, safepath.ErrSymlink, "only if root made it, in a directory that only root can change"},
		"open":       {dws.Major, safepath.ErrUnsafe, "every folder above"},
		"slow":       {dws.Major, &node.CommandError{Line: "mount /x", TimedOut: true, Err: errors.New("timeout")}, "mount.command_timeout"},
		"no profile": {dws.Major, apierrors.NewNotFound(profile, "job7-0"), "kubectl get nnfstorageprofiles"},
		"no right":   {dws.Major, apierrors.NewForbidden(profile, "job7-0", nil), "role nnf-clientmount"},
		"other":      {dws.Major, errors.New("?"), "tried again by itself"},
	} {
		wrapped := dws.WrapError(test.severity, "mount/unmount failed", dws.WrapError(dws.Major, "unable to mount file system", test.cause))
		if got := hintFor(wrapped, wrapped); !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q in it", name, got, test.want)
		}
	}
}
