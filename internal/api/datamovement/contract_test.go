package datamovement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// The wire contract, independent of the .proto file: existing programs are compiled with
// these names and numbers.
const wire = `
service datamovement.DataMover
  Version: google.protobuf.Empty -> DataMovementVersionResponse
  Create: DataMovementCreateRequest -> DataMovementCreateResponse
  Status: DataMovementStatusRequest -> DataMovementStatusResponse
  Delete: DataMovementDeleteRequest -> DataMovementDeleteResponse
  List: DataMovementListRequest -> DataMovementListResponse
  Cancel: DataMovementCancelRequest -> DataMovementCancelResponse
message DataMovementVersionResponse
  version = 1 string
  apiVersions = 2 repeated string
message DataMovementWorkflow
  name = 1 string
  namespace = 2 string
message DataMovementCommandStatus
  command = 1 string
  progress = 2 int32
  elapsedTime = 3 string
  lastMessage = 4 string
  lastMessageTime = 5 string
message DataMovementCreateRequest
  workflow = 1 DataMovementWorkflow
  source = 2 string
  destination = 3 string
  dryrun = 4 bool
  dcpOptions = 5 string
  logStdout = 6 bool
  storeStdout = 7 bool
  slots = 8 int32
  maxSlots = 9 int32
  profile = 10 string
  mpirunOptions = 11 string
message DataMovementCreateResponse
  uid = 1 string
  status = 2 DataMovementCreateResponse.Status
  message = 3 string
enum DataMovementCreateResponse.Status
  SUCCESS = 0
  FAILED = 1
  INVALID = 2
message DataMovementStatusRequest
  workflow = 1 DataMovementWorkflow
  uid = 2 string
  maxWaitTime = 3 int64
message DataMovementStatusResponse
  state = 1 DataMovementStatusResponse.State
  status = 2 DataMovementStatusResponse.Status
  message = 3 string
  commandStatus = 4 DataMovementCommandStatus
  startTime = 5 string
  endTime = 6 string
enum DataMovementStatusResponse.State
  PENDING = 0
  STARTING = 1
  RUNNING = 2
  COMPLETED = 3
  CANCELLING = 4
  UNKNOWN_STATE = 5
enum DataMovementStatusResponse.Status
  INVALID = 0
  NOT_FOUND = 1
  SUCCESS = 2
  FAILED = 3
  CANCELLED = 4
  UNKNOWN_STATUS = 5
message DataMovementDeleteRequest
  workflow = 1 DataMovementWorkflow
  uid = 2 string
message DataMovementDeleteResponse
  status = 1 DataMovementDeleteResponse.Status
  message = 2 string
enum DataMovementDeleteResponse.Status
  INVALID = 0
  NOT_FOUND = 1
  SUCCESS = 2
  ACTIVE = 3
  UNKNOWN = 4
message DataMovementListRequest
  workflow = 1 DataMovementWorkflow
message DataMovementListResponse
  uids = 1 repeated string
message DataMovementCancelRequest
  workflow = 1 DataMovementWorkflow
  uid = 2 string
message DataMovementCancelResponse
  status = 1 DataMovementCancelResponse.Status
  message = 2 string
enum DataMovementCancelResponse.Status
  INVALID = 0
  NOT_FOUND = 1
  SUCCESS = 2
  FAILED = 3
`

func TestWireContract(t *testing.T) {
	got, want := describe(File_datamovement_datamovement_proto), strings.Split(strings.Trim(wire, "\n"), "\n")
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("line %d: got %q, want %q", i+1, g, w)
		}
	}
}

// describe returns the services, messages and enums of a file in the format of wire.
func describe(f protoreflect.FileDescriptor) []string {
	var out []string
	line := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	local := func(d protoreflect.Descriptor) string {
		return strings.TrimPrefix(string(d.FullName()), string(f.Package())+".")
	}
	for i := range f.Services().Len() {
		s := f.Services().Get(i)
		line("service %s", s.FullName())
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			stream := ""
			if m.IsStreamingClient() || m.IsStreamingServer() {
				stream = " stream"
			}
			line("  %s: %s -> %s%s", m.Name(), local(m.Input()), local(m.Output()), stream)
		}
	}
	enums := func(all protoreflect.EnumDescriptors) {
		for i := range all.Len() {
			line("enum %s", local(all.Get(i)))
			for j := range all.Get(i).Values().Len() {
				v := all.Get(i).Values().Get(j)
				line("  %s = %d", v.Name(), v.Number())
			}
		}
	}
	for i := range f.Messages().Len() {
		m := f.Messages().Get(i)
		line("message %s", local(m))
		for j := range m.Fields().Len() {
			d := m.Fields().Get(j)
			kind := d.Kind().String()
			switch {
			case d.Message() != nil:
				kind = local(d.Message())
			case d.Enum() != nil:
				kind = local(d.Enum())
			}
			if d.Cardinality() == protoreflect.Repeated {
				kind = "repeated " + kind
			}
			if d.HasOptionalKeyword() || d.ContainingOneof() != nil {
				kind = "optional " + kind // not allowed by the contract
			}
			line("  %s = %d %s", d.Name(), d.Number(), kind)
		}
		enums(m.Enums())
	}
	enums(f.Enums())
	return slices.Clip(out)
}

// The syntax proto3 determines how numbers are packed and what is sent for zero values.
func TestSyntax(t *testing.T) {
	f := File_datamovement_datamovement_proto
	if f.Syntax() != protoreflect.Proto3 || f.Package() != "datamovement" {
		t.Errorf("syntax %v, package %s", f.Syntax(), f.Package())
	}
}

// The full method names are part of the wire format.
func TestMethodNames(t *testing.T) {
	for got, want := range map[string]string{
		DataMover_Version_FullMethodName: "/datamovement.DataMover/Version",
		DataMover_Create_FullMethodName:  "/datamovement.DataMover/Create",
		DataMover_Status_FullMethodName:  "/datamovement.DataMover/Status",
		DataMover_Delete_FullMethodName:  "/datamovement.DataMover/Delete",
		DataMover_List_FullMethodName:    "/datamovement.DataMover/List",
		DataMover_Cancel_FullMethodName:  "/datamovement.DataMover/Cancel",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if n := len(DataMover_ServiceDesc.Methods) + len(DataMover_ServiceDesc.Streams); n != 6 {
		t.Errorf("%d calls, want 6", n)
	}
}
