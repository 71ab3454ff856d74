package units

import (
	"strings"
	"testing"
)

// What is embedded is what is shipped, and in the form that install counts on.
func TestUnits(t *testing.T) {
	for name, text := range map[string]string{"clientmountd": ClientmountdService, "nnf-dm": NnfdmService} {
		if strings.Count("\n"+text, "\nExecStart=/usr/bin/"+name+"\n") != 1 || strings.Count("\n"+text, "\nExecStart=") != 1 {
			t.Errorf("%s.service does not have ExecStart=/usr/bin/%s as its only one", name, name)
		}
		if !strings.Contains(text, "\n[Install]\n") {
			t.Errorf("%s.service cannot be enabled", name)
		}
	}
	if !strings.Contains(NnfdmService, "\nUser=nnf-dm\n") {
		t.Error("nnf-dm.service runs as somebody else than the user that install makes")
	}
	if !strings.Contains(NnfdmSocket, "\nListenStream=/run/nnf-dm.sock\n") {
		t.Error("nnf-dm.socket is not where clients look for it")
	}
}
