package datamovement

import (
	"flag"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	datamovementv2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

var update = flag.Bool("update", false, "write golden files")

const goldenV2 = "v2/testdata/wire.txt"

// Names and numbers of version 2 as released: lines may be added to the golden file, but
// never removed or changed.
func TestWireVersion2(t *testing.T) {
	got := strings.Join(describe(datamovementv2.File_datamovement_v2_datamovement_proto), "\n") + "\n"
	if *update {
		if err := os.WriteFile(goldenV2, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenV2)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (-update writes it):\n%s", goldenV2, got)
	}
}

// Zero must not be a valid value: in version 1 it means INVALID in one enum and SUCCESS in
// another.
func TestZeroIsUnspecified(t *testing.T) {
	enums := datamovementv2.File_datamovement_v2_datamovement_proto.Enums()
	if enums.Len() == 0 {
		t.Fatal("no enums")
	}
	for i := range enums.Len() {
		zero := enums.Get(i).Values().ByNumber(0)
		if zero == nil || !strings.HasSuffix(string(zero.Name()), "_UNSPECIFIED") {
			t.Errorf("%s: 0 is %v", enums.Get(i).Name(), zero)
		}
	}
}

// One program and one server can use both versions.
func TestVersionsApart(t *testing.T) {
	v1, v2 := File_datamovement_datamovement_proto, datamovementv2.File_datamovement_v2_datamovement_proto
	if v1.Path() == v2.Path() || v1.Package() == v2.Package() {
		t.Errorf("%s and %s conflict in a registry", v1.Path(), v2.Path())
	}
	if got, want := datamovementv2.DataMover_ServiceDesc.ServiceName, "datamovement.v2.DataMover"; got != want {
		t.Errorf("service %s, want %s", got, want)
	}
	watch := v2.Services().ByName("DataMover").Methods().ByName("Watch")
	if watch == nil || !watch.IsStreamingServer() || watch.IsStreamingClient() {
		t.Errorf("Watch is not a server stream: %v", watch)
	}
}

// Field 1 of every request of version 2 is the workflow: a call accesses objects of the
// named workflow only.
func TestVersion2NamesWorkflow(t *testing.T) {
	methods := datamovementv2.File_datamovement_v2_datamovement_proto.Services().ByName("DataMover").Methods()
	for i := range methods.Len() {
		f := methods.Get(i).Input().Fields().ByNumber(1)
		if f == nil || f.Kind() != protoreflect.MessageKind || f.Message().Name() != "Workflow" {
			t.Errorf("%s: field 1 of the request is %v", methods.Get(i).Name(), f)
		}
	}
}
