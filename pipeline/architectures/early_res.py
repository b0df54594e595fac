"""Trial."""
import keras
from pipeline.architectures._lab import net

def build() -> keras.Model:
    """Trial."""
    return net([[32],[64,64],[128,128],[256,256]], residual=True)
