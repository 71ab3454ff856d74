package datamovement

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

const (
	node   = "compute-01"
	rabbit = "rabbit-01"
	wfUID  = "11110000-0000-4000-8000-00000000000a"
	mount0 = "/mnt/nnf/" + wfUID + "-0"
)

var job7 = WorkflowRef{Name: "job7", Namespace: "default"}

func workflow() *dws.Workflow {
	return &dws.Workflow{
		ObjectMeta: metav1.ObjectMeta{Name: "job7", Namespace: "default", UID: wfUID},
		Spec:       dws.WorkflowSpec{UserID: 1001, GroupID: 100},
		Status:     dws.WorkflowStatus{State: "PreRun", Status: "Completed", Ready: true},
	}
}

// clientMount returns a mounted and ready ClientMount with one entry.
func clientMount(namespace, path, typ string) *dws.ClientMount {
	ref := dws.ObjectReference{Kind: "NnfNodeStorage", Name: "default-job7-0-gfs2-0", Namespace: rabbit}
	device := dws.DeviceLVM
	if typ == dws.TypeLustre {
		ref = dws.ObjectReference{Kind: "NnfStorage", Name: "job7-0", Namespace: "default"}
		device = dws.DeviceLustre
	}
	return &dws.ClientMount{
		ObjectMeta: metav1.ObjectMeta{Name: "default-job7-0-computes", Namespace: namespace, Labels: map[string]string{
			api.LabelDirectiveIndex: "0", api.LabelTargetDirectiveIndex: "0", api.LabelJobID: "4711", api.LabelWorkflowUID: wfUID,
		}},
		Spec: dws.ClientMountSpec{Node: namespace, DesiredState: dws.Mounted, Mounts: []dws.Mount{{
			MountPath: path, Type: typ,
			Device: dws.Device{Type: device, DeviceReference: &dws.ReferenceDevice{ObjectReference: ref, Data: 3}},
		}}},
		Status: dws.ClientMountStatus{Mounts: []dws.MountStatus{{State: dws.Mounted, Ready: true}}},
	}
}

// mountAt returns a ready entry of the compute or the rabbit.
func mountAt(namespace, path, typ string) Mount { return Mounts(clientMount(namespace, path, typ))[0] }

// movement returns a movement that compute-01 has started for job7.
func movement(change ...func(*nnf.DataMovement)) *nnf.DataMovement {
	dm, err := Object(parts(dws.TypeGFS2))
	if err != nil {
		panic(err)
	}
	dm.Name, dm.GenerateName = "nnf-dm-node-abcde", ""
	for _, f := range change {
		f(dm)
	}
	return dm
}

// parts returns the parts of the example in TestObjectExample.
func parts(typ string) *Parts {
	p := &Parts{
		Request: Request{
			Workflow: job7, Source: mount0 + "/out/", Destination: "/lus/global/alice/out/", Slots: 8, MaxSlots: -1,
		},
		Node: node, Rabbit: rabbit, Workflow: workflow(), Identity: Identity{1001, 100},
		Mount:       mountAt(node, mount0, typ),
		Source:      mount0 + "/rabbit-01-3/out/",
		Profile:     profile("default"),
		Destination: dws.ObjectReference{Kind: "LustreFileSystem", Name: "global", Namespace: "default"},
	}
	if typ == dws.TypeLustre {
		p.Source = mount0 + "/out/"
	}
	return p
}

// profile returns a profile with a typical command: the IDs follow the place where the
// rabbit inserts the user's options.
func profile(name string) *nnf.DataMovementProfile {
	return &nnf.DataMovementProfile{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: nnf.DataMovementProfileData{Command: usualProfile}}
}

// parsed returns a request with its paths parsed as in Check.
func parsed(source, destination string) (*Request, error) {
	r := &Request{Source: source, Destination: destination}
	var err error
	if source != "-" {
		if r.from, err = parsePath(fieldSource, source); err != nil {
			return nil, err
		}
	}
	if destination != "-" {
		r.to, err = parsePath(fieldDestination, destination)
	}
	return r, err
}

// mapSource calls FindMount and OnRabbit for one source.
func mapSource(source string, computes, servers []Mount) (Mount, string, error) {
	r, err := parsed(source, "-")
	if err != nil {
		return Mount{}, "", err
	}
	m, err := FindMount(r, computes, node)
	if err != nil {
		return m, "", err
	}
	p, _, err := OnRabbit(r, m, servers, node, rabbit)
	return m, p, err
}

// findMount calls FindMount for one source.
func findMount(source string, computes []Mount) (Mount, error) {
	r, err := parsed(source, "-")
	if err != nil {
		return Mount{}, err
	}
	return FindMount(r, computes, node)
}

// wantFault checks kind, reason and a part of the text.
func wantFault(t *testing.T, err error, kind error, reason v2.ErrorReason, text string) {
	t.Helper()
	var f *Fault
	if !errors.As(err, &f) {
		t.Fatalf("error %v (%T), want a fault with %q", err, err, text)
	}
	if !errors.Is(err, kind) || f.Reason != reason || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, %s, %q\nwant %v, %s, ...%q...", f.Kind, f.Reason, err, kind, reason, text)
	}
}
