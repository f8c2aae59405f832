// Run an artifact of format torchscript: torchscript ARTIFACT/model.pt TOKENS.txt
//
// Prints the outputs in the order of `outputs` in the artifact's cpu_pipeline.json.

#include <torch/script.h>

#include "tokens.h"

int main(int count, char** given) try {
  if (count != 3) {
    std::cerr << "usage: torchscript ARTIFACT/model.pt TOKENS.txt\n";
    return 2;
  }
  torch::jit::Module module = torch::jit::load(given[1], at::kCPU);
  module.eval();
  const auto inputs = tokens::read(given[2]);

  std::vector<torch::jit::IValue> arguments;
  for (const auto& argument : module.get_method("forward").function().getSchema().arguments()) {
    if (argument.name() == "self") continue;
    const auto found = inputs.find(argument.name());
    if (found == inputs.end()) throw std::runtime_error(std::string(given[2]) + ": there is no " + argument.name() + " in it");
    arguments.emplace_back(found->second);
  }

  const c10::InferenceMode without_gradients;
  const auto answers = module.forward(arguments).toTuple();
  for (const auto& answer : answers->elements()) tokens::print(answer.toTensor());
  return 0;
} catch (const std::exception& error) {
  std::cerr << "torchscript: " << error.what() << '\n';
  return 1;
}
