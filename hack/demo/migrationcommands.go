package main

// The command lines of docs/migration.md. A test holds the page to them, and the story runs them.
const (
	makeSigners = "kubectl countersign trust key generate ci && kubectl countersign trust key generate qa"
	addCI       = "kubectl countersign trust signer add ci registry.example.com/acme/app --key ci.pub --init"
	addQA       = "kubectl countersign trust signer add qa registry.example.com/acme/app --key qa.pub"
	pinRoot     = "kubectl countersign trust pin registry.example.com/acme/app --name acme-dct --server-ca notary.crt" +
		" > acme-dct.yaml"
	applyDCT = "kubectl apply -f acme-dct.yaml"
	// More often than by default, so that nobody has to wait long for a release.
	oftener = `kubectl patch trustroot.countersign.dev acme-dct --type=merge -p '{"spec":{"refreshInterval":"30s"}}'`

	signCIDCT = "kubectl countersign trust sign registry.example.com/acme/app:latest --digest DIGEST --role ci"
	signQADCT = "kubectl countersign trust sign registry.example.com/acme/app:latest --digest DIGEST --role qa"

	makeCosignKeys = "cosign generate-key-pair --output-key-prefix cosign-ci && " +
		"cosign generate-key-pair --output-key-prefix cosign-qa"
	storeCosignKeys = "kubectl create configmap cosign-keys -n countersign-system --from-file=ci.pub=cosign-ci.pub" +
		" --from-file=qa.pub=cosign-qa.pub"
	applySigstore = "kubectl apply -f acme-sigstore.yaml"
	waitSigstore  = "kubectl wait --for=condition=Ready trustroot.countersign.dev/acme-sigstore --timeout=60s"
	waitDCT       = "kubectl wait --for=condition=Ready trustroot.countersign.dev/acme-dct --timeout=60s"

	signCICosign = "cosign sign --key cosign-ci.key --use-signing-config=false --tlog-upload=false" +
		" registry.example.com/acme/app@DIGEST"
	signQACosign = "cosign sign --key cosign-qa.key --use-signing-config=false --tlog-upload=false" +
		" registry.example.com/acme/app@DIGEST"

	revokeDCT = "kubectl countersign trust revoke registry.example.com/acme/app:latest"

	rootsBoth = `kubectl patch imagepolicy.countersign.dev production --type=merge` +
		` -p '{"spec":{"trustRoots":["acme-sigstore","acme-dct"]}}'`
	rootsSigstore = `kubectl patch imagepolicy.countersign.dev production --type=merge` +
		` -p '{"spec":{"trustRoots":["acme-sigstore"]}}'`
	rootsDCT = `kubectl patch imagepolicy.countersign.dev production --type=merge` +
		` -p '{"spec":{"trustRoots":["acme-dct"]}}'`
	deleteDCT      = "kubectl delete trustroot.countersign.dev acme-dct"
	deleteSigstore = "kubectl delete trustroot.countersign.dev acme-sigstore"

	verifyRelease = "kubectl countersign verify registry.example.com/acme/app@DIGEST -n shop"
	summary       = "kubectl countersign inspect --summary $(cat repositories.txt)"
)

// road returns the command lines of each step of docs/migration.md.
func road() [][]string {
	return [][]string{
		{
			makeSigners, addCI, addQA, pinRoot, applyDCT, oftener, waitDCT, signCIDCT, signQADCT, verifyRelease,
			summary,
		},
		{
			makeCosignKeys, storeCosignKeys, applySigstore, waitSigstore, rootsBoth, signCICosign, signQADCT,
			verifyRelease, summary,
		},
		{signCICosign, signQACosign, verifyRelease, revokeDCT, summary},
		{rootsSigstore, deleteDCT, signCICosign, signQACosign, verifyRelease, summary},
		{
			applyDCT, waitDCT, rootsBoth, signCICosign, signQADCT, signCIDCT, verifyRelease, summary,
			rootsDCT, deleteSigstore,
		},
	}
}
