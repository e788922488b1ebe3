package notaryserver

import (
	"strings"
	"testing"
)

func TestFile(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	tests := map[string]struct {
		path string
		want bool
	}{
		"latest":        {"/v2/a/b/_trust/tuf/targets/qa.json", true},
		"by hash":       {"/v2/a/b/_trust/tuf/targets/qa." + hash + ".json", true},
		"by version":    {"/v2/a/b/_trust/tuf/2.targets/qa.json", true},
		"another role":  {"/v2/a/b/_trust/tuf/targets.json", false},
		"a longer role": {"/v2/a/b/_trust/tuf/targets/qa/deep." + hash + ".json", false},
		"not metadata":  {"/v2/_trust/changefeed", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := File("targets/qa")(tt.path); got != tt.want {
				t.Errorf("got %t for %s, want %t", got, tt.path, tt.want)
			}
		})
	}
}
