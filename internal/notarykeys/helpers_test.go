package notarykeys

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"os/exec"
	"testing"
)

// runShell runs a command that an error names.
func runShell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("running %q: %v: %s", command, err, out)
	}
}

// withIterations replaces the number of iterations of an encrypted key.
func withIterations(t *testing.T, der []byte, n int) []byte {
	t.Helper()
	var key encryptedKey
	if _, err := asn1.Unmarshal(der, &key); err != nil {
		t.Fatal(err)
	}
	parameters, err := asn1.Marshal(derivation{Salt: make([]byte, saltSize), Iterations: n})
	if err != nil {
		t.Fatal(err)
	}
	key.Algorithm.Parameters.KeyDerivation = pkix.AlgorithmIdentifier{
		Algorithm: oidPBKDF2(), Parameters: asn1.RawValue{FullBytes: parameters},
	}
	out, err := asn1.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
