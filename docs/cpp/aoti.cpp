// Run an artifact of format pt2: aoti ARTIFACT/model.pt2 TOKENS.txt
//
// Prints the outputs in the order of `outputs` in the artifact's cpu_pipeline.json.

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "tokens.h"

int main(int count, char** given) try {
  if (count != 3) {
    std::cerr << "usage: aoti ARTIFACT/model.pt2 TOKENS.txt\n";
    return 2;
  }
  const auto inputs = tokens::read(given[2]);
  torch::inductor::AOTIModelPackageLoader model(given[1]);

  // The first half of the call specification names the inputs, and ours are exported in the order of kNames.
  const std::string takes = model.get_call_spec().at(0);
  std::vector<at::Tensor> arguments;
  for (const char* name : tokens::kNames) {
    if (takes.find(name) == std::string::npos) continue;
    const auto found = inputs.find(name);
    if (found == inputs.end()) throw std::runtime_error(std::string(given[2]) + ": there is no " + name + " in it");
    arguments.push_back(found->second);
  }

  for (const auto& answer : model.run(arguments)) tokens::print(answer.to(at::kFloat));
  return 0;
} catch (const std::exception& error) {
  std::cerr << "aoti: " << error.what() << '\n';
  return 1;
}
