package units

import (
	"strings"
	"testing"
)

// The embedded units are the shipped ones, in the form that install expects.
func TestUnits(t *testing.T) {
	for name, text := range map[string]string{"clientmountd": ClientmountdService, "nnf-dm": NnfdmService} {
		if strings.Count("\n"+text, "\nExecStart=/usr/bin/"+name+"\n") != 1 || strings.Count("\n"+text, "\nExecStart=") != 1 {
			t.Errorf("%s.service does not have exactly one ExecStart=, /usr/bin/%s", name, name)
		}
		if !strings.Contains(text, "\n[Install]\n") {
			t.Errorf("%s.service cannot be enabled", name)
		}
	}
	if !strings.Contains(NnfdmService, "\nUser=nnf-dm\n") {
		t.Error("nnf-dm.service does not run as the user that install creates")
	}
	if !strings.Contains(NnfdmSocket, "\nListenStream=/run/nnf-dm.sock\n") {
		t.Error("the path of nnf-dm.socket is not the default of the clients")
	}
}
