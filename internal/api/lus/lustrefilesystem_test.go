package lus

import (
	"encoding/json"
	"testing"
)

func TestLustreFileSystem(t *testing.T) {
	const in = `{"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "global", "namespace": "default"},
	  "spec": {"name": "glob", "mgsNids": "1@tcp", "mountRoot": "/lus/global", "storageClassName": "nnf-lustre-fs",
	    "namespaces": {"default": {"modes": ["ReadWriteMany"]}}}}, {}]}`
	var l struct{ Items []LustreFileSystem }
	if err := json.Unmarshal([]byte(in), &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Items) != 2 || l.Items[0].Name != "global" || l.Items[0].Spec != (LustreFileSystemSpec{"glob", "/lus/global"}) ||
		l.Items[1].Spec != (LustreFileSystemSpec{}) {
		t.Errorf("%+v", l)
	}
}
