package apiserver

import "testing"

func ownServer(t *testing.T) {}
