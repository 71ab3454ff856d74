package datamovement_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	datamovementv2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// The .proto files and their descriptors in the generated code.
var generated = map[string]protoreflect.FileDescriptor{
	"datamovement/datamovement.proto":    datamovement.File_datamovement_datamovement_proto,
	"datamovement/v2/datamovement.proto": datamovementv2.File_datamovement_v2_datamovement_proto,
}

const again = "run internal/api/datamovement/generate.sh"

func compile(t *testing.T, path string) protoreflect.FileDescriptor {
	t.Helper()
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{".."}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return files[0]
}

// The generated code corresponds to the .proto files.
func TestGenerated(t *testing.T) {
	for path, built := range generated {
		want := proto.CloneOf(protoutil.ProtoFromFileDescriptor(compile(t, path)))
		want.SourceCodeInfo = nil // not in the generated code; TestGeneratedComments checks comments
		if got := protodesc.ToFileDescriptorProto(built); !proto.Equal(got, want) {
			t.Errorf("%s: the generated code is outdated: %s\ncode: %s\ntext: %s", path, again, prototext.Format(got), prototext.Format(want))
		}
	}
}

// The comments are documentation for users: every declaration has one, and the generated
// code has the same comments.
func TestGeneratedComments(t *testing.T) {
	for path := range generated {
		code := ""
		for _, suffix := range []string{".pb.go", "_grpc.pb.go"} {
			data, err := os.ReadFile(filepath.Join("..", strings.TrimSuffix(path, ".proto")+suffix))
			if err != nil {
				t.Fatal(err)
			}
			code += string(data)
		}
		lines := map[string]bool{}
		for l := range strings.Lines(code) {
			lines[strings.TrimSpace(l)] = true
		}
		f := compile(t, path)
		everything(f, func(d protoreflect.Descriptor) {
			comment := f.SourceLocations().ByDescriptor(d).LeadingComments
			if strings.TrimSpace(comment) == "" {
				t.Errorf("%s: %s has no comment", path, d.FullName())
			}
			for l := range strings.Lines(comment) {
				if l = strings.TrimSpace(l); l != "" && !lines["// "+l] {
					t.Errorf("%s: %s: the generated code lacks %q: %s", path, d.FullName(), l, again)
				}
			}
		})
	}
}

// everything calls do for every declaration of a file.
func everything(f protoreflect.FileDescriptor, do func(protoreflect.Descriptor)) {
	enums := func(all protoreflect.EnumDescriptors) {
		for i := range all.Len() {
			do(all.Get(i))
			for j := range all.Get(i).Values().Len() {
				do(all.Get(i).Values().Get(j))
			}
		}
	}
	var messages func(protoreflect.MessageDescriptors)
	messages = func(all protoreflect.MessageDescriptors) {
		for i := range all.Len() {
			m := all.Get(i)
			if m.IsMapEntry() {
				continue // generated for a map field
			}
			do(m)
			for j := range m.Fields().Len() {
				do(m.Fields().Get(j))
			}
			enums(m.Enums())
			messages(m.Messages())
		}
	}
	for i := range f.Services().Len() {
		do(f.Services().Get(i))
		for j := range f.Services().Get(i).Methods().Len() {
			do(f.Services().Get(i).Methods().Get(j))
		}
	}
	enums(f.Enums())
	messages(f.Messages())
}
